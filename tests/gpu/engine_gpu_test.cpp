// Sessions on GPUs beyond right results (tests/engine shows those): graphs, late and lost ranks,
// calls that do not match, repeatability, NCCL of somebody else. Ranks are threads (engine_gpu) or
// the processes that mpirun started (engine_gpu_mpi); where GPUs are fewer, they share them.

#include "comm/nccl/nccl_communicator.h"
#include "runtime/base/cuda_check.h"
#include "runtime/base/cuda_handles.h"
#include "runtime/base/device_buffer.h"
#include "runtime/base/dtype.h"
#include "tests/engine/distributed.h"
#include "tests/support/each_world.h"

#include <annulus/annulus.h>
#include <annulus/collective.h>

#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <span>
#include <thread>
#include <vector>

namespace annulus::testing {
namespace {

using Bytes = std::vector<std::byte>;

class OnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (device_count() == 0) GTEST_SKIP() << "no GPU";
  }
};

Problem problem() {
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
        p_(problem()),
        session_(mesh, {.max_problem = p_,
                        .algorithm = algorithm,
                        .backend = "cuda",
                        .transport = test_place().transport,
                        .peer_copies = test_place().peer_copies,
                        .ranks_per_host = test_place().ranks_per_host}),
        attention_(session_, p_,
                   {.algorithm = algorithm, .deterministic = true, .ulysses_slices = 2}),
        rows_(attention_.layout().seq_local(mesh.rank())),
        keys_(attention_.layout().seq_kv_local(mesh.rank())),
        stream_(session_.device()) {
    for (const bool poisoned : {false, true}) renew(7, poisoned);
    barrier(mesh_, "tensors are there");
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

  void call(cudaStream_t stream) {
    attention_.forward(q_.view(), k_.view(), v_.view(), out_.view(), lse_.view(), stream);
    attention_.backward(dout_.view(), q_.view(), k_.view(), v_.view(), out_.view(), lse_.view(),
                        dq_.view(), dk_.view(), dv_.view(), stream);
  }

  std::vector<Bytes> results() {
    attention_.synchronize(stream());
    barrier(mesh_, "results are there");
    return {out_.read(), lse_.read(), dq_.read(), dk_.read(), dv_.read()};
  }

  cudaStream_t stream() const { return static_cast<cudaStream_t>(stream_.get()); }
  Attention& attention() { return attention_; }
  int device() const { return session_.device(); }

 private:
  Mesh& mesh_;
  Problem p_;
  Session session_;
  Attention attention_;
  std::int64_t rows_, keys_;
  DeviceStream stream_;
  GpuTensor q_{session_.device(), p_.dtype, {1, rows_, p_.heads, 128}};
  GpuTensor k_{session_.device(), p_.dtype, {1, keys_, *p_.heads_kv, 128}};
  GpuTensor v_{session_.device(), p_.dtype, {1, keys_, *p_.heads_kv, 128}};
  GpuTensor dout_{session_.device(), p_.dtype, {1, rows_, p_.heads, 128}};
  GpuTensor out_{session_.device(), p_.dtype, {1, rows_, p_.heads, 128}};
  GpuTensor lse_{session_.device(), DType::f32, {1, p_.heads, rows_}};
  GpuTensor dq_{session_.device(), p_.dtype, {1, rows_, p_.heads, 128}};
  GpuTensor dk_{session_.device(), p_.dtype, {1, keys_, *p_.heads_kv, 128}};
  GpuTensor dv_{session_.device(), p_.dtype, {1, keys_, *p_.heads_kv, 128}};
};

const std::vector<Algorithm> kAlgorithms{Algorithm::ring, Algorithm::gather, Algorithm::ulysses};

TEST_F(OnGpu, GivesTheSameBitsTwice) {
  for (const Algorithm algorithm : kAlgorithms) {
    each_world(
        [&](Mesh& mesh) {
          Rank rank(mesh, algorithm);
          rank.call(rank.stream());
          const auto first = rank.results();
          for (int again = 0; again < 5; ++again) {
            rank.renew(7);
            barrier(mesh, "renewed");
            rank.call(rank.stream());
            EXPECT_EQ(rank.results(), first) << name_of(algorithm) << " call " << again;
          }
        },
        {}, 2);
  }
}

/// With another rank of this process.
bool shares_gpu(Mesh& mesh, int device) {
  const std::array<int, 2> mine{getpid(), device};
  std::vector<std::array<int, 2>> all(static_cast<std::size_t>(mesh.world()));
  all_gather(mesh, std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)));
  return std::count(all.begin(), all.end(), mine) > 1;
}

/// Refused where ranks are threads on one GPU.
TEST_F(OnGpu, ReplaysACapturedCallWithNewInputs) {
  for (const Algorithm algorithm : kAlgorithms) {
    each_world(
        [&](Mesh& mesh) {
          Rank rank(mesh, algorithm);
          const DeviceScope scope(rank.device());
          cudaGraph_t graph = nullptr;
          check_cuda(cudaStreamBeginCapture(rank.stream(), cudaStreamCaptureModeThreadLocal),
                     "begin");
          if (shares_gpu(mesh, rank.device())) {
            EXPECT_THROW(rank.call(rank.stream()), Unsupported);
            (void)cudaStreamEndCapture(rank.stream(), &graph);
            (void)cudaGetLastError();
            return;
          }
          rank.call(rank.stream());
          check_cuda(cudaStreamEndCapture(rank.stream(), &graph), "end");
          cudaGraphExec_t ready = nullptr;
          check_cuda(cudaGraphInstantiate(&ready, graph, 0), "instantiate");
          for (unsigned replay = 0; replay < 100; ++replay) {
            const bool compared = replay % 25 == 0;
            if (compared) rank.renew(100 + replay);
            barrier(mesh, "renewed");
            check_cuda(cudaGraphLaunch(ready, rank.stream()), "replay");
            if (!compared) continue;
            const auto replayed = rank.results();
            rank.renew(100 + replay);
            barrier(mesh, "renewed");
            rank.call(rank.stream());
            EXPECT_EQ(rank.results(), replayed) << name_of(algorithm) << " replay " << replay;
          }
          rank.results();
          check_cuda(cudaGraphExecDestroy(ready), "destroy");
          check_cuda(cudaGraphDestroy(graph), "destroy");
        },
        {}, 2);
  }
}

TEST_F(OnGpu, WaitsForARankThatIsLate) {
  for (const Algorithm algorithm : kAlgorithms) {
    each_world(
        [&](Mesh& mesh) {
          Rank rank(mesh, algorithm);
          rank.call(rank.stream());
          const auto expected = rank.results();
          rank.renew(7);
          barrier(mesh, "renewed");
          if (mesh.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(50));
          rank.call(rank.stream());
          EXPECT_EQ(rank.results(), expected) << name_of(algorithm);
        },
        {}, 2);
  }
}

TEST_F(OnGpu, TurnsALostRankIntoATimeout) {
  for (const Algorithm algorithm : kAlgorithms) {
    const auto start = std::chrono::steady_clock::now();
    each_world(
        [&](Mesh& mesh) {
          Rank rank(mesh, algorithm);
          if (mesh.rank() == 1) {
            std::this_thread::sleep_for(std::chrono::seconds(4));
            return;
          }
          rank.call(rank.stream());
          try {
            rank.attention().synchronize(rank.stream());
            ADD_FAILURE() << name_of(algorithm) << ": nothing was thrown";
          } catch (const Timeout& error) {
            const std::string text = error.what();
            EXPECT_NE(text.find("rank "), std::string::npos) << text;
            EXPECT_NE(text.find("item "), std::string::npos) << text;
          } catch (const CommError&) {
            // another rank was first
          }
          EXPECT_THROW(rank.call(rank.stream()), CommError);
        },
        {.timeout_s = 2.0}, 2);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    EXPECT_LT(took.count(), 30.0) << name_of(algorithm);
  }
}

/// Rank 1 calls another plan than the others, with the same tags.
TEST_F(OnGpu, TurnsAnotherPlansSignalIntoAnError) {
  if (test_place().transport == "nccl") GTEST_SKIP() << "nccl has no signals";
  std::atomic<int> named{0};
  each_world(
      [&](Mesh& mesh) {
        Problem p = problem();
        Session session(mesh, {.max_problem = p,
                               .algorithm = Algorithm::ring,
                               .backward = false,
                               .backend = "cuda",
                               .peer_copies = test_place().peer_copies});
        Attention causal(session, p, {.algorithm = Algorithm::ring});
        p.mask = Mask::full();
        Attention full(session, p, {.algorithm = Algorithm::ring});
        const std::int64_t rows = causal.layout().seq_local(mesh.rank());
        const std::int64_t keys = causal.layout().seq_kv_local(mesh.rank());
        const int device = session.device();
        const GpuTensor q(device, p.dtype, {1, rows, p.heads, 128});
        const GpuTensor k(device, p.dtype, {1, keys, *p.heads_kv, 128});
        const GpuTensor out(device, p.dtype, {1, rows, p.heads, 128});
        const GpuTensor lse(device, DType::f32, {1, p.heads, rows});
        const DeviceStream stream(device);
        barrier(mesh, "tensors are there");
        Attention& called = mesh.rank() == 1 ? full : causal;
        const auto ask = [&] {
          // A rank that passed its neighbours' signals hears of it a little later.
          for (int i = 0; i < 50; ++i) {
            called.synchronize(stream.get());
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
          }
        };
        called.forward(q.view(), k.view(), k.view(), out.view(), lse.view(), stream.get());
        try {
          ask();
          ADD_FAILURE() << "rank " << mesh.rank() << ": nothing was thrown";
        } catch (const CommError& error) {
          const std::string text = error.what();
          named += text.find("is of plan") != std::string::npos ? 1 : 0;
        }
      },
      {.timeout_s = 20.0}, 2);
  // Under mpirun each process sees its own text alone.
  if (std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr) return;
  EXPECT_GE(named.load(), 1);
}

/// Somebody else's all-to-all holds SMs and waits for its ranks, on another stream.
TEST_F(OnGpu, RunsBesideAForeignNcclCollective) {
  if (const std::string why = comm::nccl::why_not(); !why.empty()) GTEST_SKIP() << why;
  if (world_sizes().front() > device_count()) GTEST_SKIP() << "NCCL wants a GPU for each rank";
  constexpr std::int64_t kBytes = std::int64_t{16} << 20;
  for (const Algorithm algorithm : kAlgorithms) {
    each_world(
        [&](Mesh& mesh) {
          Rank rank(mesh, algorithm);
          rank.call(rank.stream());
          const auto expected = rank.results();
          const DeviceScope scope(rank.device());
          const DeviceBuffer buffer(2 * mesh.world() * kBytes);
          std::vector<int> others;
          std::vector<comm::nccl::Message> messages;
          for (int r = 0; r < mesh.world(); ++r) {
            if (r == mesh.rank()) continue;
            others.push_back(r);
            messages.push_back({true, r, buffer.data() + 2 * r * kBytes, kBytes});
            messages.push_back({false, r, buffer.data() + (2 * r + 1) * kBytes, kBytes});
          }
          const comm::nccl::NcclCommunicator foreign(*mesh.impl().communicator, rank.device(),
                                                     nullptr, others);
          const CudaStream stream = make_stream();
          rank.renew(7);
          barrier(mesh, "renewed");
          for (int call = 0; call < 10; ++call) {
            for (int i = 0; i < 3; ++i) foreign.exchange(messages, stream.get());
            rank.call(rank.stream());
          }
          EXPECT_EQ(rank.results(), expected) << name_of(algorithm);
          check_cuda(cudaStreamSynchronize(stream.get()), "the foreign collective");
          barrier(mesh, "the foreign collective is over");
        },
        {}, 2);
  }
}

TEST_F(OnGpu, NamesWhatCannotBe) {
  Mesh mesh = Mesh::single();
  EXPECT_THROW(Session(mesh, {.max_problem = problem(), .backend = "cuda", .device = 99}),
               InvalidArgument);
  EXPECT_THROW(Session(mesh, {.max_problem = problem(), .backend = "cuda", .transport = "pigeons"}),
               Error);
}

}  // namespace
}  // namespace annulus::testing
