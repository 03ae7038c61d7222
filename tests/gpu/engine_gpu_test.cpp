// Sessions on GPUs beyond right results (tests/engine shows those): graphs, late and lost ranks,
// calls that do not match, repeatability, NCCL of somebody else. Ranks are threads (engine_gpu) or
// the processes that mpirun started (engine_gpu_mpi); where GPUs are fewer, they share them.

#include "comm/nccl/nccl_communicator.h"
#include "runtime/base/cuda_check.h"
#include "runtime/base/cuda_handles.h"
#include "runtime/base/device_buffer.h"
#include "tests/engine/distributed.h"
#include "tests/gpu/gpu_rank.h"
#include "tests/support/each_world.h"

#include <annulus/annulus.h>
#include <annulus/collective.h>

#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <span>
#include <thread>
#include <vector>

namespace annulus::testing {
namespace {

class OnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (device_count() == 0) GTEST_SKIP() << "no GPU";
  }
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

/// Are any two ranks of one process on one GPU?
bool share_gpus(Mesh& mesh, int device) {
  const std::array<int, 2> mine{getpid(), device};
  std::vector<std::array<int, 2>> all(static_cast<std::size_t>(mesh.world()));
  all_gather(mesh, std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)));
  std::ranges::sort(all);
  return std::ranges::adjacent_find(all) != all.end();
}

/// A captured call, ready to be played again. Null where a graph may not capture it: where some
/// ranks are threads on one GPU.
cudaGraphExec_t captured(Mesh& mesh, Rank& rank, Attention& attention) {
  cudaGraph_t graph = nullptr;
  check_cuda(cudaStreamBeginCapture(rank.stream(), cudaStreamCaptureModeThreadLocal), "begin");
  if (share_gpus(mesh, rank.device())) {
    EXPECT_THROW(rank.call(attention, rank.stream()), Unsupported);
    (void)cudaStreamEndCapture(rank.stream(), &graph);
    (void)cudaGetLastError();
    return nullptr;
  }
  rank.call(attention, rank.stream());
  check_cuda(cudaStreamEndCapture(rank.stream(), &graph), "end");
  cudaGraphExec_t ready = nullptr;
  check_cuda(cudaGraphInstantiate(&ready, graph, 0), "instantiate");
  check_cuda(cudaGraphDestroy(graph), "destroy");
  return ready;
}

/// Of an eager call of the rank's own attention with each of the inputs.
std::vector<std::vector<Bytes>> results_of(Rank& rank, const std::vector<Rank::Inputs>& sets) {
  std::vector<std::vector<Bytes>> results;
  for (const Rank::Inputs& inputs : sets) {
    rank.take(inputs);
    rank.call(rank.stream());
    results.push_back(rank.results());
  }
  return results;
}

/// 100 replays, each with other inputs than the one before it and NaN in its outputs. Ten of them
/// are enqueued at a time, which nobody waits for in between; then the last one's results are
/// compared. Seven sets of inputs: each is compared.
TEST_F(OnGpu, ReplaysACapturedCallWithNewInputs) {
  constexpr unsigned kSets = 7;
  for (const Algorithm algorithm : kAlgorithms) {
    each_world(
        [&](Mesh& mesh) {
          Rank rank(mesh, algorithm);
          const DeviceScope scope(rank.device());
          std::vector<Rank::Inputs> sets;
          for (unsigned s = 0; s < kSets; ++s) sets.push_back(rank.inputs(100 + 4 * s));
          barrier(mesh, "inputs are there");
          cudaGraphExec_t ready = captured(mesh, rank, rank.attention());
          if (ready == nullptr) return;
          barrier(mesh, "captured");
          const auto expected = results_of(rank, sets);
          EXPECT_NE(expected[0], expected[1]);
          for (unsigned replay = 0; replay < 100; ++replay) {
            rank.take(sets[replay % kSets]);
            check_cuda(cudaGraphLaunch(ready, rank.stream()), "replay");
            if (replay % 10 != 9) continue;
            EXPECT_EQ(rank.results(), expected[replay % kSets])
                << name_of(algorithm) << " replay " << replay;
          }
          check_cuda(cudaGraphExecDestroy(ready), "destroy");
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

/// Two attentions that add in other orders, both of bf16: each is off by some 0.3 %. A block of
/// keys or a part of a gradient that was not there, or was another call's, is above 10 %.
constexpr double kOtherOrder = 0.02;

TEST_F(OnGpu, WaitsForARankThatIsLateInAnyOrder) {
  for (const Algorithm algorithm : kAlgorithms) {
    each_world(
        [&](Mesh& mesh) {
          Rank rank(mesh, algorithm);
          Attention attention = rank.attention_in_any_order();
          for (const int late : {1, 0}) {
            const unsigned seed = 70 + 10 * static_cast<unsigned>(late);
            rank.renew(seed);
            barrier(mesh, "renewed");
            rank.call(rank.stream());
            const auto expected = rank.results();
            rank.renew(seed + 100);  // what the arena holds is of other inputs
            barrier(mesh, "others");
            rank.call(attention, rank.stream());
            EXPECT_GT(rank.distance(rank.results(), expected), 0.5);
            rank.renew(seed);
            barrier(mesh, "renewed again");
            if (mesh.rank() == late) std::this_thread::sleep_for(std::chrono::milliseconds(50));
            rank.call(attention, rank.stream());
            EXPECT_LT(rank.distance(rank.results(), expected), kOtherOrder)
                << name_of(algorithm) << ", rank " << late << " is late";
          }
        },
        {}, 2);
  }
}

TEST_F(OnGpu, ReplaysACapturedCallInAnyOrder) {
  constexpr unsigned kSets = 3;
  for (const Algorithm algorithm : kAlgorithms) {
    each_world(
        [&](Mesh& mesh) {
          Rank rank(mesh, algorithm);
          Attention attention = rank.attention_in_any_order();
          const DeviceScope scope(rank.device());
          std::vector<Rank::Inputs> sets;
          for (unsigned s = 0; s < kSets; ++s) sets.push_back(rank.inputs(200 + 4 * s));
          barrier(mesh, "inputs are there");
          cudaGraphExec_t ready = captured(mesh, rank, attention);
          if (ready == nullptr) return;
          barrier(mesh, "captured");
          const auto expected = results_of(rank, sets);
          for (unsigned replay = 0; replay < 40; ++replay) {
            rank.take(sets[replay % kSets]);
            check_cuda(cudaGraphLaunch(ready, rank.stream()), "replay");
            if (replay % 10 != 9) continue;
            EXPECT_LT(rank.distance(rank.results(), expected[replay % kSets]), kOtherOrder)
                << name_of(algorithm) << " replay " << replay;
          }
          check_cuda(cudaGraphExecDestroy(ready), "destroy");
        },
        {}, 2);
  }
}

/// Rank 1 comes to `calls` calls, and then to none.
void lose_rank(Algorithm algorithm, int calls) {
  const auto start = std::chrono::steady_clock::now();
  each_world(
      [&](Mesh& mesh) {
        Rank rank(mesh, algorithm);
        for (int call = 0; call < calls; ++call) {
          rank.call(rank.stream());
          (void)rank.results();
        }
        if (mesh.rank() == 1) {
          std::this_thread::sleep_for(std::chrono::seconds(4));
          return;
        }
        try {
          rank.call(rank.stream());
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

TEST_F(OnGpu, TurnsALostRankIntoATimeout) {
  for (const Algorithm algorithm : kAlgorithms) lose_rank(algorithm, 1);
}

TEST_F(OnGpu, TurnsARankThatNeverCallsIntoATimeout) { lose_rank(Algorithm::ring, 0); }

/// Rank 1 calls another plan than the others, with the same tags.
TEST_F(OnGpu, TurnsAnotherPlansSignalIntoAnError) {
  if (test_place().transport == "nccl") GTEST_SKIP() << "nccl has no signals";
  std::atomic<int> named{0};
  each_world(
      [&](Mesh& mesh) {
        Problem p = problem_of_ranks();
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
        // The first calls are agreed upon; from then on nobody asks.
        for (Attention* attention : {&causal, &full}) {
          attention->forward(q.view(), k.view(), k.view(), out.view(), lse.view(), stream.get());
          attention->synchronize(stream.get());
        }
        barrier(mesh, "both were called");
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

/// One rank's forward and backward of `hopper`, by the second call.
struct Limited {
  std::vector<Bytes> results;
  double forward_s = 0, backward_s = 0;
};

std::optional<Limited> limited_to(int sm_limit) {
  Mesh mesh = Mesh::single();
  const Problem p = resolved({.seq = 4099, .heads = 8, .head_dim = 128, .dtype = DType::bf16});
  Session session(mesh, {.max_problem = p, .backend = "cuda"});
  Attention attention(session, p, {.deterministic = true, .sm_limit = sm_limit});
  if (attention.kernel_used() != "hopper") return std::nullopt;
  const int device = session.device();
  const auto tensor = [&] { return GpuTensor(device, p.dtype, {1, p.seq, p.heads, 128}); };
  GpuTensor q = tensor(), dout = tensor(), out = tensor(), dq = tensor(), dk = tensor(),
            dv = tensor(), lse(device, DType::f32, {1, p.heads, p.seq});
  q.randomize(3);
  dout.randomize(4);
  const DeviceStream stream(device);
  for (int call = 0; call < 2; ++call) {
    attention.forward(q.view(), q.view(), q.view(), out.view(), lse.view(), stream.get());
    attention.backward(dout.view(), q.view(), q.view(), q.view(), out.view(), lse.view(), dq.view(),
                       dk.view(), dv.view(), stream.get());
    attention.synchronize(stream.get());
  }
  return Limited{{out.read(), lse.read(), dq.read(), dk.read(), dv.read()},
                 attention.stats(Pass::forward).total_s,
                 attention.stats(Pass::backward).total_s};
}

/// One multiprocessor has 1 / 132 of an H100's tensor cores: some 80 and more times as long.
TEST_F(OnGpu, TakesNoMoreMultiprocessorsThanItMay) {
  if (std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr) GTEST_SKIP() << "times are of a GPU alone";
  const auto all = limited_to(0);
  if (!all) GTEST_SKIP() << "hopper does not run here";
  const auto one = limited_to(1), three = limited_to(3);
  EXPECT_GT(one->forward_s, 20 * all->forward_s);
  EXPECT_GT(one->backward_s, 20 * all->backward_s);
  EXPECT_GT(one->forward_s, 2 * three->forward_s);
  EXPECT_LT(one->forward_s, 4 * three->forward_s);
  EXPECT_EQ(one->results, all->results);
  EXPECT_EQ(three->results, all->results);
}

TEST_F(OnGpu, NamesWhatCannotBe) {
  Mesh mesh = Mesh::single();
  EXPECT_THROW(Session(mesh, {.max_problem = problem_of_ranks(), .backend = "cuda", .device = 99}),
               InvalidArgument);
  EXPECT_THROW(
      Session(mesh, {.max_problem = problem_of_ranks(), .backend = "cuda", .transport = "pigeons"}),
      Error);
}

}  // namespace
}  // namespace annulus::testing
