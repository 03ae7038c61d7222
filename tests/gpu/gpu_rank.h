#pragma once

#include "runtime/base/cuda_check.h"
#include "runtime/base/dtype.h"
#include "tests/engine/distributed.h"

#include <annulus/annulus.h>
#include <annulus/collective.h>

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <random>
#include <vector>

namespace annulus::testing {

using Bytes = std::vector<std::byte>;

inline Problem problem_of_ranks() {
  return resolved(
      {.batch = 1, .seq = 1031, .heads = 8, .heads_kv = 4, .head_dim = 128, .dtype = DType::bf16});
}

/// A compact tensor on a GPU with random numbers, or NaN.
class GpuTensor {
 public:
  GpuTensor(int device, DType dtype, std::initializer_list<std::int64_t> shape)
      : view_(nullptr, dtype, shape), bytes_(view_.elements() * size_of(dtype), device) {
    view_.data = bytes_.data();
  }

  void randomize(unsigned seed) {
    Bytes host(static_cast<std::size_t>(bytes_.bytes()));
    std::mt19937 engine(seed);
    std::normal_distribution<double> normal;
    for (std::int64_t i = 0; i < view_.elements(); ++i) {
      store_f64(host.data(), view_.dtype, i, normal(engine));
    }
    bytes_.upload(host);
  }
  void poison() { bytes_.upload(Bytes(static_cast<std::size_t>(bytes_.bytes()), std::byte{0xff})); }
  void poison(cudaStream_t stream) {
    check_cuda(cudaMemsetAsync(view_.data, 0xff, static_cast<std::size_t>(bytes_.bytes()), stream),
               "poison");
  }
  void copy(const GpuTensor& from, cudaStream_t stream) {
    check_cuda(
        cudaMemcpyAsync(view_.data, from.view_.data, static_cast<std::size_t>(bytes_.bytes()),
                        cudaMemcpyDeviceToDevice, stream),
        "copy of inputs");
  }
  Bytes read() const {
    Bytes host(static_cast<std::size_t>(bytes_.bytes()));
    bytes_.download(host);
    return host;
  }
  const TensorView& view() const { return view_; }

 private:
  TensorView view_;
  DeviceBytes bytes_;
};

/// One rank's session, attention and tensors.
class Rank {
 public:
  Rank(Mesh& mesh, Algorithm algorithm)
      : mesh_(mesh),
        p_(problem_of_ranks()),
        session_(mesh, {.max_problem = p_,
                        .algorithm = algorithm,
                        .backend = "cuda",
                        .transport = test_place().transport,
                        .peer_copies = test_place().peer_copies,
                        .ranks_per_host = test_place().ranks_per_host}),
        attention_(session_, p_, options(algorithm)),
        rows_(attention_.layout().seq_local(mesh.rank())),
        keys_(attention_.layout().seq_kv_local(mesh.rank())),
        stream_(session_.device()) {
    for (const bool poisoned : {false, true}) renew(7, poisoned);
    barrier(mesh_, "tensors are there");
  }
  static AttentionOptions options(Algorithm algorithm) {
    return {.algorithm = algorithm, .deterministic = true, .ulysses_slices = 2};
  }
  /// Not deterministic: dq, dk and dv are summed in any order, gather's keys as they arrive.
  Attention attention_in_any_order() {
    return Attention(session_, p_, {.algorithm = attention_.algorithm(), .ulysses_slices = 2});
  }
  /// Nobody frees while others wait on the same GPU.
  ~Rank() {
    try {
      barrier(mesh_, "all are done");
    } catch (const Error&) {
      // the test has seen why
    }
  }

  /// New inputs, and NaN in every output.
  void renew(unsigned seed, bool poisoned = true) {
    const auto rank = static_cast<unsigned>(mesh_.rank());
    for (GpuTensor* t : {&q_, &k_, &v_, &dout_}) t->randomize(seed++ * 64 + rank);
    if (!poisoned) return;
    for (GpuTensor* t : {&out_, &lse_, &dq_, &dk_, &dv_}) t->poison();
  }

  /// Other inputs, to be taken over by copies on a stream.
  struct Inputs {
    GpuTensor q, k, v, dout;
  };
  Inputs inputs(unsigned seed) const {
    Inputs made{.q = like_q(), .k = like_k(), .v = like_k(), .dout = like_q()};
    for (GpuTensor* t : {&made.q, &made.k, &made.v, &made.dout}) {
      t->randomize(seed++ * 64 + static_cast<unsigned>(mesh_.rank()));
    }
    return made;
  }

  /// On the rank's stream: these inputs, and NaN in every output.
  void take(const Inputs& from) {
    q_.copy(from.q, stream());
    k_.copy(from.k, stream());
    v_.copy(from.v, stream());
    dout_.copy(from.dout, stream());
    poison(stream());
  }

  void call(cudaStream_t stream) { call(attention_, stream); }
  /// Both passes of an attention of the same shapes.
  void call(Attention& attention, cudaStream_t stream) {
    attention.forward(q_.view(), k_.view(), v_.view(), out_.view(), lse_.view(), stream);
    attention.backward(dout_.view(), q_.view(), k_.view(), v_.view(), out_.view(), lse_.view(),
                       dq_.view(), dk_.view(), dv_.view(), stream);
  }
  void poison(cudaStream_t stream) {
    for (GpuTensor* t : {&out_, &lse_, &dq_, &dk_, &dv_}) t->poison(stream);
  }

  /// Root mean square of the difference over that of `b`; of lse a hundred times that, for it is
  /// f32. Infinite where anything is not finite.
  double distance(const std::vector<Bytes>& a, const std::vector<Bytes>& b) const {
    constexpr std::size_t kLse = 1;  // of results()
    double worst = 0.0;
    for (std::size_t t = 0; t < a.size(); ++t) {
      const DType dtype = t == kLse ? DType::f32 : p_.dtype;
      double difference = 0.0, size = 0.0;
      for (std::int64_t i = 0; i < static_cast<std::int64_t>(a[t].size()) / size_of(dtype); ++i) {
        const double y = load_f64(b[t].data(), dtype, i), d = load_f64(a[t].data(), dtype, i) - y;
        difference += d * d;
        size += y * y;
      }
      if (!std::isfinite(difference)) return std::numeric_limits<double>::infinity();
      worst = std::max(worst, std::sqrt(difference / size) * (t == kLse ? 100.0 : 1.0));
    }
    return worst;
  }

  std::vector<Bytes> results() {
    attention_.synchronize(stream());
    barrier(mesh_, "results are there");
    return {out_.read(), lse_.read(), dq_.read(), dk_.read(), dv_.read()};
  }

  cudaStream_t stream() const { return static_cast<cudaStream_t>(stream_.get()); }
  const DeviceStream& device_stream() const { return stream_; }
  Attention& attention() { return attention_; }
  Session& session() { return session_; }
  int device() const { return session_.device(); }

 private:
  GpuTensor like_q() const { return {session_.device(), p_.dtype, {1, rows_, p_.heads, 128}}; }
  GpuTensor like_k() const { return {session_.device(), p_.dtype, {1, keys_, *p_.heads_kv, 128}}; }

  Mesh& mesh_;
  Problem p_;
  Session session_;
  Attention attention_;
  std::int64_t rows_, keys_;
  DeviceStream stream_;
  GpuTensor q_ = like_q(), k_ = like_k(), v_ = like_k(), dout_ = like_q();
  GpuTensor out_ = like_q(), dq_ = like_q(), dk_ = like_k(), dv_ = like_k();
  GpuTensor lse_{session_.device(), DType::f32, {1, p_.heads, rows_}};
};

}  // namespace annulus::testing
