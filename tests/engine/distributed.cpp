#include "tests/engine/distributed.h"

#include "runtime/base/dtype.h"
#include "tests/engine/arenas.h"
#include "tests/engine/shared_nccl.h"

#include <gtest/gtest.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace annulus::testing {
namespace {

/// A [batch, tokens, heads, dim] tensor with padding after each token, NaN all over.
class Padded {
 public:
  Padded(std::int64_t pad, DType dtype, std::int64_t batch, std::int64_t tokens, std::int64_t heads,
         std::int64_t dim)
      : row_(heads * dim),
        pad_(pad),
        bytes_(static_cast<std::size_t>(batch * tokens * (row_ + pad_) * size_of(dtype) + 8),
               std::byte{0xff}) {
    view_ = TensorView(bytes_.data(), dtype, {batch, tokens, heads, dim});
    view_.strides[1] = row_ + pad_;
    view_.strides[0] = tokens * view_.strides[1];
  }

  const TensorView& view() const { return view_; }

  std::int64_t index(std::int64_t b, std::int64_t t, std::int64_t i) const {
    return b * view_.strides[0] + t * view_.strides[1] + i;
  }

  void fill(const std::vector<double>& full, std::int64_t seq,
            const std::vector<std::int64_t>& positions) {
    each([&](std::int64_t b, std::int64_t t, std::int64_t i) {
      const std::int64_t from = (b * seq + positions[static_cast<std::size_t>(t)]) * row_ + i;
      store_f64(view_.data, view_.dtype, index(b, t, i), full[static_cast<std::size_t>(from)]);
    });
  }

  std::vector<double> values() const {
    std::vector<double> out;
    each([&](std::int64_t b, std::int64_t t, std::int64_t i) {
      out.push_back(load_f64(view_.data, view_.dtype, index(b, t, i)));
    });
    return out;
  }

  void expect_padding(const char* name) const {
    for (std::int64_t b = 0; b < view_.shape[0]; ++b) {
      for (std::int64_t t = 0; t < view_.shape[1]; ++t) {
        for (std::int64_t i = row_; i < row_ + pad_; ++i) {
          ASSERT_TRUE(std::isnan(load_f64(view_.data, view_.dtype, index(b, t, i))))
              << name << ": padding of token " << t << " was written";
        }
      }
    }
  }

 private:
  template <typename Fn>
  void each(Fn fn) const {
    for (std::int64_t b = 0; b < view_.shape[0]; ++b) {
      for (std::int64_t t = 0; t < view_.shape[1]; ++t) {
        for (std::int64_t i = 0; i < row_; ++i) fn(b, t, i);
      }
    }
  }

  std::int64_t row_;
  std::int64_t pad_;
  std::vector<std::byte> bytes_;
  TensorView view_;
};

/// The tensors of one rank on its GPU, or where they are without one.
class OnDevice {
 public:
  explicit OnDevice(int device) : device_(device) {
    if (device >= 0) stream_ = DeviceStream(device);
  }

  Stream stream() const { return stream_.get(); }
  TensorView in(const TensorView& host) { return copy_of(host, false); }
  TensorView out(const TensorView& host) { return copy_of(host, true); }

  void download() const {
    for (const auto& [host, copy] : copies_) {
      if (copy.written) copy.bytes.download({static_cast<std::byte*>(host), copy.size});
    }
  }

 private:
  struct Copy {
    DeviceBytes bytes;
    std::size_t size = 0;
    bool written = false;
  };

  TensorView copy_of(const TensorView& host, bool written) {
    if (device_ < 0) return host;
    Copy& copy = copies_[host.data];
    if (copy.size == 0) {
      copy.size = extent(host);
      copy.bytes = DeviceBytes(static_cast<std::int64_t>(copy.size), device_);
      copy.bytes.upload({static_cast<const std::byte*>(host.data), copy.size});
    }
    copy.written = copy.written || written;
    TensorView view = host;
    view.data = copy.bytes.data();
    return view;
  }

  /// Bytes from the first element to the end of the last batch element's padding.
  static std::size_t extent(const TensorView& view) {
    return static_cast<std::size_t>(view.shape[0] * view.strides[0] * size_of(view.dtype) + 8);
  }

  int device_;
  DeviceStream stream_;
  std::map<void*, Copy> copies_;
};

double relative(double error, double largest) { return largest > 0 ? error / largest : error; }

double difference(double x, double ref) {
  if (x == ref) return 0.0;  // equal infinities
  const double d = std::abs(x - ref);
  return std::isnan(d) ? std::numeric_limits<double>::infinity() : d;
}

double largest_finite(const std::vector<double>& values) {
  double m = 0.0;
  for (const double v : values) {
    if (std::isfinite(v)) m = std::max(m, std::abs(v));
  }
  return m;
}

/// The largest difference, and the sum of squares; then the same in units of a size each.
struct Difference {
  double largest = 0.0, squares = 0.0;
  double most_sizes = 0.0, squares_of_sizes = 0.0;
  void note(double local, double full, double size = std::numeric_limits<double>::infinity()) {
    const double d = difference(local, full);
    largest = std::max(largest, d);
    squares += d * d;
    const double z = d == 0.0 ? 0.0 : d / size;
    most_sizes = std::max(most_sizes, z);
    squares_of_sizes += z * z;
  }
};

/// `row` elements a token, local against full; `sizes`: of full, or empty.
Difference of_tokens(const std::vector<double>& local, const std::vector<double>& full,
                     const std::vector<double>& sizes, const std::vector<std::int64_t>& positions,
                     std::int64_t batch, std::int64_t seq, std::int64_t row) {
  Difference all;
  std::size_t n = 0;
  for (std::int64_t b = 0; b < batch; ++b) {
    for (const std::int64_t p : positions) {
      for (std::int64_t i = 0; i < row; ++i) {
        const auto at = static_cast<std::size_t>((b * seq + p) * row + i);
        if (sizes.empty()) {
          all.note(local[n++], full[at]);
        } else {
          all.note(local[n++], full[at], sizes[at]);
        }
      }
    }
  }
  return all;
}

Difference of_lse(const std::vector<double>& local, const std::vector<double>& full,
                  const std::vector<std::int64_t>& positions, std::int64_t rows, std::int64_t seq) {
  Difference all;
  std::size_t n = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (const std::int64_t p : positions) {
      all.note(local[n++], full[static_cast<std::size_t>(r * seq + p)]);
    }
  }
  return all;
}

/// Of one result, over all ranks.
ResultError error_of(Mesh& mesh, const Difference& mine, const std::vector<double>& truth) {
  std::vector<Difference> ranks(static_cast<std::size_t>(mesh.world()));
  all_gather(mesh, std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(ranks)));
  Difference all;
  for (const Difference& d : ranks) {
    all.largest = std::max(all.largest, d.largest);
    all.squares += d.squares;
    all.most_sizes = std::max(all.most_sizes, d.most_sizes);
    all.squares_of_sizes += d.squares_of_sizes;
  }
  double squares = 0.0;
  for (const double v : truth) squares += std::isfinite(v) ? v * v : 0.0;
  const auto count = static_cast<double>(std::max<std::size_t>(truth.size(), 1));
  return {relative(all.largest, largest_finite(truth)), std::sqrt(relative(all.squares, squares)),
          all.most_sizes, std::sqrt(all.squares_of_sizes / count)};
}

}  // namespace

TestPlace test_place() {
  const auto text = [](const char* name, const char* otherwise) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? otherwise : value);
  };
  return {text("ANNULUS_TEST_BACKEND", "cpu"),
          text("ANNULUS_TEST_TRANSPORT", "auto"),
          std::stoi(text("ANNULUS_TEST_RANKS_PER_HOST", "0")),
          text("ANNULUS_TEST_PEER_COPIES", "auto"),
          text("ANNULUS_TEST_GATHER_AT_ONCE", "1") != "0",
          text("ANNULUS_TEST_GATHER_PUSH", "1") != "0",
          text("ANNULUS_TEST_NCCL", "own") == "shared"};
}

RankResult run_rank(Mesh& mesh, const Problem& problem, const OracleInputs& inputs,
                    const RunOptions& options) {
  const Problem p = resolved(problem);
  const TestPlace place = test_place();
  SessionOptions where{.max_problem = p,
                       .algorithm = options.algorithm,
                       .layout = options.layout,
                       .outer = options.outer,
                       .kernel = options.kernel,
                       .threads = options.threads,
                       .backend = place.backend,
                       .transport = place.transport,
                       .nccl = place.shares_nccl ? shared_nccl(mesh) : nullptr,
                       .peer_copies = place.peer_copies,
                       .ranks_per_host = place.ranks_per_host,
                       .backward_moves = options.backward_moves};
  std::optional<CallerArena> arena;
  if (options.caller_arena) where.arena = arena.emplace(mesh, where).get();
  Session session(mesh, where);
  if (place.shares_nccl && session.device() >= 0 && session.transport() != "peer")
    share_nccl(mesh, session.device());
  poison(session);
  Attention attention(session, p,
                      {.algorithm = options.algorithm,
                       .layout = options.layout,
                       .outer = options.outer,
                       .kernel = options.kernel,
                       .deterministic = options.deterministic,
                       .blocking_transfers = options.blocking,
                       .gather_at_once = place.gather_at_once,
                       .gather_push = place.gather_push,
                       .ulysses_slices = options.ulysses_slices,
                       .backward_moves = options.backward_moves});
  const auto rows = attention.layout().positions(mesh.rank());
  const auto keys = attention.layout().positions_kv(mesh.rank());
  const auto n = static_cast<std::int64_t>(rows.size());
  const auto m = static_cast<std::int64_t>(keys.size());
  const std::int64_t wide = *p.head_dim_v;
  const std::int64_t pad = options.pad;
  Padded q(pad, p.dtype, p.batch, n, p.heads, p.head_dim),
      k(pad, p.dtype, p.batch, m, *p.heads_kv, p.head_dim),
      v(pad, p.dtype, p.batch, m, *p.heads_kv, wide), dout(pad, p.dtype, p.batch, n, p.heads, wide),
      out(pad, p.dtype, p.batch, n, p.heads, wide),
      dq(pad, p.dtype, p.batch, n, p.heads, p.head_dim),
      dk(pad, p.dtype, p.batch, m, *p.heads_kv, p.head_dim),
      dv(pad, p.dtype, p.batch, m, *p.heads_kv, wide);
  q.fill(inputs.q, p.seq, rows);
  k.fill(inputs.k, *p.seq_kv, keys);
  v.fill(inputs.v, *p.seq_kv, keys);
  dout.fill(inputs.dout, p.seq, rows);
  std::vector<float> lse(static_cast<std::size_t>(p.batch * p.heads * n + 2), std::nanf(""));
  const TensorView lse_view(lse.data(), DType::f32, {p.batch, p.heads, n});

  OnDevice on(session.device());
  for (const Padded* t : {&q, &k, &v, &dout}) on.in(t->view());
  for (const Padded* t : {&out, &dq, &dk, &dv}) on.out(t->view());
  on.out(lse_view);
  // cudaMalloc and cudaFree may wait for a GPU whose streams wait for ranks that share it.
  barrier(mesh, "tensors are there");
  for (int call = 0; call < options.calls; ++call) {
    attention.forward(on.in(q.view()), on.in(k.view()), on.in(v.view()), on.out(out.view()),
                      on.out(lse_view), on.stream());
    attention.backward(on.in(dout.view()), on.in(q.view()), on.in(k.view()), on.in(v.view()),
                       on.in(out.view()), on.in(lse_view), on.out(dq.view()), on.out(dk.view()),
                       on.out(dv.view()), on.stream());
  }
  attention.synchronize(on.stream());
  barrier(mesh, "results are there");
  on.download();
  if (arena && mesh.world() > 1) arena->expect_nothing_behind();
  out.expect_padding("out");
  dq.expect_padding("dq");
  dk.expect_padding("dk");
  dv.expect_padding("dv");
  RankResult result;
  result.out = out.values();
  result.lse.assign(lse.begin(), lse.end() - 2);
  result.dq = dq.values();
  result.dk = dk.values();
  result.dv = dv.values();
  result.forward = attention.stats(Pass::forward);
  result.backward = attention.stats(Pass::backward);
  return result;
}

Errors errors_of(Mesh& mesh, const Problem& problem, const Sharding& sharding,
                 const RankResult& result, const OracleResult& truth, const OracleResult* sizes) {
  const Problem p = resolved(problem);
  const auto rows = sharding.positions(mesh.rank());
  const auto keys = sharding.positions_kv(mesh.rank());
  const std::int64_t wide = *p.head_dim_v;
  const std::int64_t dim = p.head_dim;
  const OracleResult none;
  const OracleResult& s = sizes == nullptr ? none : *sizes;
  const auto of_rows = [&](const auto& local, const auto& full, const auto& size,
                           std::int64_t row) {
    return error_of(mesh, of_tokens(local, full, size, rows, p.batch, p.seq, p.heads * row), full);
  };
  const auto of_keys = [&](const auto& local, const auto& full, const auto& size,
                           std::int64_t row) {
    return error_of(mesh, of_tokens(local, full, size, keys, p.batch, *p.seq_kv, *p.heads_kv * row),
                    full);
  };
  return {.out = of_rows(result.out, truth.out, s.out, wide),
          .lse = error_of(mesh, of_lse(result.lse, truth.lse, rows, p.batch * p.heads, p.seq),
                          truth.lse),
          .dq = of_rows(result.dq, truth.dq, s.dq, dim),
          .dk = of_keys(result.dk, truth.dk, s.dk, dim),
          .dv = of_keys(result.dv, truth.dv, s.dv, wide)};
}

std::string describe(const Problem& problem, const RunOptions& options, int world) {
  const Problem p = resolved(problem);
  return fmt::format(
      "batch {} seq {} seq_kv {} heads {}:{} dims {}/{} {} mask {} softcap {} | {} (outer {}) {} "
      "kernel {} slices {} moves {} world {}",
      p.batch, p.seq, *p.seq_kv, p.heads, *p.heads_kv, p.head_dim, *p.head_dim_v, name_of(p.dtype),
      p.mask.name(), p.softcap, name_of(options.algorithm), name_of(options.outer),
      options.layout.name(), options.kernel, options.ulysses_slices,
      name_of(options.backward_moves), world);
}

}  // namespace annulus::testing
