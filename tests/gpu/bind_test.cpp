// Attentions are made and dropped while the GPU is busy: nobody waits, no memory is taken, and all
// that was and will be enqueued computes the same bits.

#include "runtime/base/cuda_check.h"
#include "tests/gpu/gpu_rank.h"
#include "tests/support/each_world.h"

#include <annulus/annulus.h>
#include <annulus/collective.h>

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace annulus::testing {
namespace {

Problem packed(std::vector<std::int64_t> documents) {
  Problem p = problem_of_ranks();
  p.mask = Mask::documents(std::move(documents));
  return p;
}

const std::vector<std::int64_t> kDocuments{400, 31, 350, 250};
const std::vector<std::int64_t> kOtherDocuments{7, 512, 512};

/// Holds a stream until released, or until `limit` is over: then whoever waited for it goes on, and
/// the test fails instead of hanging.
class Held {
 public:
  Held(const DeviceStream& stream, std::chrono::milliseconds limit) : stream_(stream) {
    stream_.hold();
    thread_ = std::thread([this, limit] {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, limit, [&] { return asked_; });
      stream_.release();
    });
  }
  ~Held() { release(); }

  void release() {
    {
      const std::scoped_lock lock(mutex_);
      asked_ = true;
    }
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
  }
  void expect_still(const char* when) const {
    EXPECT_EQ(cudaStreamQuery(static_cast<cudaStream_t>(stream_.get())), cudaErrorNotReady) << when;
    (void)cudaGetLastError();
  }

 private:
  const DeviceStream& stream_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool asked_ = false;
  std::thread thread_;
};
constexpr std::chrono::seconds kFarTooLong{20};

std::size_t free_bytes() {
  std::size_t free = 0;
  std::size_t total = 0;
  check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return free;
}

/// One rank, so that no other is waited for.
class Bind : public ::testing::Test {
 protected:
  void SetUp() override {
    if (device_count() == 0) GTEST_SKIP() << "no GPU";
    if (std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr) GTEST_SKIP() << "memory is of a GPU alone";
    mesh_.emplace(Mesh::single());
    rank_.emplace(*mesh_, Algorithm::ring);
  }

  Attention made(const Problem& p) { return {rank_->session(), p, Rank::options(Algorithm::ring)}; }
  /// Of an attention that is made while the GPU idles.
  std::vector<Bytes> expected(const Problem& p) {
    Attention attention = made(p);
    return results_of(attention);
  }
  std::vector<Bytes> results_of(Attention& attention) {
    rank_->poison(stream());
    rank_->call(attention, stream());
    return rank_->results();
  }
  cudaStream_t stream() const { return rank_->stream(); }

  std::optional<Mesh> mesh_;
  std::optional<Rank> rank_;
};

TEST_F(Bind, WaitsForNothingAndTakesNoMemory) {
  const auto of_causal = expected(problem_of_ranks());
  const auto of_packed = expected(packed(kDocuments));
  ASSERT_NE(of_causal, of_packed);
  // A first graph takes 2 MiB of the driver's own. Other programs on the GPU would be seen as well.
  for (int i = 0; i < 20; ++i) (void)made(packed(i % 2 == 0 ? kDocuments : kOtherDocuments));
  Held held(rank_->device_stream(), kFarTooLong);
  rank_->call(stream());
  const std::size_t before = free_bytes();
  {
    Attention same = made(problem_of_ranks());
    Attention other = made(packed(kDocuments));
    held.expect_still("two were made");
    EXPECT_EQ(free_bytes(), before) << "two were made";
    // The first call of one, which is enqueued behind what is held.
    rank_->poison(stream());
    rank_->call(other, stream());
    held.expect_still("one was called");
    held.release();
    EXPECT_EQ(rank_->results(), of_packed);
    EXPECT_EQ(results_of(same), of_causal);
    EXPECT_EQ(results_of(other), of_packed);
  }
  for (int i = 0; i < 20; ++i) (void)made(packed(i % 2 == 0 ? kDocuments : kOtherDocuments));
  EXPECT_EQ(free_bytes(), before) << "all were dropped";
}

/// Its first call is rehearsed, as a graph that is made ready and dropped.
TEST_F(Bind, OfANewSizeWaitsForNothing) {
  Problem less = packed({100, 156});
  less.seq = 256;
  less.seq_kv = 256;
  Held held(rank_->device_stream(), kFarTooLong);
  rank_->call(stream());
  const Attention attention = made(less);
  held.expect_still("it was made");
}

/// A new plan for each step of a trainer whose host runs ahead: lists of the next lie where those
/// of the one before lay, whose call has not even begun.
TEST_F(Bind, DropsWhatStillRuns) {
  constexpr int kSteps = 12;
  const Problem problems[] = {packed(kDocuments), packed(kOtherDocuments), problem_of_ranks()};
  std::vector<std::vector<Bytes>> of_each;
  for (const Problem& p : problems) of_each.push_back(expected(p));
  const std::size_t before = free_bytes();
  for (int last = 0; last < 3; ++last) {
    Held held(rank_->device_stream(), kFarTooLong);
    for (int step = 0; step <= kSteps + last; ++step) {
      Attention attention = made(problems[step % 3]);
      rank_->poison(stream());
      rank_->call(attention, stream());
    }
    held.expect_still("all were made, called and dropped");
    EXPECT_EQ(free_bytes(), before);
    held.release();
    EXPECT_EQ(rank_->results(), of_each[static_cast<std::size_t>((kSteps + last) % 3)]);
  }
}

std::vector<Bytes> replayed(Rank& rank, Attention& attention, cudaStreamCaptureMode mode) {
  cudaGraph_t graph = nullptr;
  check_cuda(cudaStreamBeginCapture(rank.stream(), mode), "begin");
  rank.call(attention, rank.stream());
  check_cuda(cudaStreamEndCapture(rank.stream(), &graph), "end");
  cudaGraphExec_t ready = nullptr;
  check_cuda(cudaGraphInstantiate(&ready, graph, 0), "instantiate");
  check_cuda(cudaGraphDestroy(graph), "destroy");
  rank.poison(rank.stream());
  check_cuda(cudaGraphLaunch(ready, rank.stream()), "replay");
  std::vector<Bytes> results = rank.results();
  check_cuda(cudaGraphExecDestroy(ready), "destroy");
  return results;
}

TEST_F(Bind, MayBeFollowedByACaptureAtOnce) {
  const auto of_packed = expected(packed(kDocuments));
  for (const auto mode : {cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeGlobal}) {
    Attention attention = made(packed(kDocuments));
    EXPECT_EQ(replayed(*rank_, attention, mode), of_packed);
    EXPECT_EQ(results_of(attention), of_packed) << "eager, after the replay";
  }
}

/// The upload stands behind a call that is held, of an attention that is gone: the capture waits
/// for it.
TEST_F(Bind, IsAwaitedByACapture) {
  const auto of_packed = expected(packed(kDocuments));
  const DeviceStream other(rank_->device());
  for (const auto mode : {cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeGlobal}) {
    Held held(other, std::chrono::milliseconds(100));
    {
      Attention gone = made(packed(kOtherDocuments));
      rank_->call(gone, static_cast<cudaStream_t>(other.get()));
    }
    Attention attention = made(packed(kDocuments));
    EXPECT_EQ(replayed(*rank_, attention, mode), of_packed);
  }
}

/// While calls of all ranks wait behind what is held on one of them.
TEST(BindOfRanks, WaitsForNobody) {
  if (device_count() == 0) GTEST_SKIP() << "no GPU";
  for (const Algorithm algorithm : {Algorithm::ring, Algorithm::gather, Algorithm::ulysses}) {
    each_world(
        [&](Mesh& mesh) {
          Rank rank(mesh, algorithm);
          const Problem p = packed(kDocuments);
          std::vector<Bytes> expected;
          {
            Attention idle(rank.session(), p, Rank::options(algorithm));
            rank.call(idle, rank.stream());
            expected = rank.results();
          }
          Held held(rank.device_stream(), kFarTooLong);
          rank.call(rank.stream());
          Attention fresh(rank.session(), p, Rank::options(algorithm));
          held.expect_still("one was made");
          rank.poison(rank.stream());
          rank.call(fresh, rank.stream());
          held.expect_still("it was called");
          barrier(mesh, "all have called");
          held.release();
          EXPECT_EQ(rank.results(), expected) << name_of(algorithm);
          barrier(mesh, "results were read");
        },
        {}, 2);
  }
}

}  // namespace
}  // namespace annulus::testing
