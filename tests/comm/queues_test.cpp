// How many ranks one process may put on one GPU.

#include "comm/device/queues.h"

#include <annulus/error.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace annulus::comm {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

/// `ranks` threads of one process on GPUs 0, 1, ... in turn.
std::vector<Seat> threads(int ranks, int gpus, int queues) {
  std::vector<Seat> seats;
  for (int r = 0; r < ranks; ++r) seats.push_back({7, 100, r % gpus, queues});
  return seats;
}

TEST(Queues, AreWhatTheDriverTakes) {
  EXPECT_EQ(hardware_queues(nullptr), 8);
  EXPECT_EQ(hardware_queues("1"), 1);
  EXPECT_EQ(hardware_queues("32"), 32);
  EXPECT_EQ(hardware_queues("100"), 32);
  EXPECT_EQ(hardware_queues("many"), 8);
}

TEST(Queues, SufficeForOneRankOnAGpuHoweverFewTheyAre) {
  EXPECT_THAT(crowded_queues(threads(1, 1, 1)), IsEmpty());
  EXPECT_FALSE(share_gpus(threads(1, 1, 1)));
  EXPECT_THAT(crowded_queues(threads(8, 8, 1)), IsEmpty());
  EXPECT_FALSE(share_gpus(threads(8, 8, 1)));
  EXPECT_TRUE(share_gpus(threads(3, 2, 9)));
}

TEST(Queues, SufficeForProcessesAndForOtherHosts) {
  std::vector<Seat> seats = threads(8, 1, 8);
  for (std::size_t r = 0; r < seats.size(); ++r) seats[r].process += static_cast<std::int64_t>(r);
  EXPECT_THAT(crowded_queues(seats), IsEmpty());
  EXPECT_FALSE(share_gpus(seats));
  seats = threads(4, 1, 6);
  EXPECT_THAT(crowded_queues(seats), HasSubstr("4 ranks"));
  seats[2].host = seats[3].host = 8;
  EXPECT_THAT(crowded_queues(seats), IsEmpty());
}

TEST(Queues, AreCountedByStreamsOfRanksThatShareAGpu) {
  EXPECT_THAT(crowded_queues(threads(2, 1, 8)), IsEmpty());
  EXPECT_THAT(crowded_queues(threads(5, 2, 9)), IsEmpty());
  EXPECT_THAT(crowded_queues(threads(10, 1, 32)), IsEmpty());
  const std::string three = crowded_queues(threads(3, 1, 8));
  EXPECT_THAT(three, HasSubstr("rank 0: 3 ranks that are threads of one process share GPU 0"));
  EXPECT_THAT(three, HasSubstr("9 streams"));
  EXPECT_THAT(three, HasSubstr("there are 8: set CUDA_DEVICE_MAX_CONNECTIONS=9"));
  EXPECT_THAT(crowded_queues(threads(11, 1, 32)),
              HasSubstr("start ranks as processes: there are 32 at most"));
}

TEST(Queues, RefuseOnEveryRankAlike) {
  const auto communicators = make_local_communicators(4, 10.0);
  std::vector<std::string> errors(communicators.size());
  {
    std::vector<std::jthread> ranks;
    for (std::size_t r = 0; r < errors.size(); ++r) {
      ranks.emplace_back([&, r] {
        try {
          require_queues(*communicators[r], 0);  // one GPU for all
        } catch (const InvalidArgument& error) {
          errors[r] = error.what();
        }
      });
    }
  }
  if (hardware_queues(std::getenv("CUDA_DEVICE_MAX_CONNECTIONS")) >= 12) {
    GTEST_SKIP() << "CUDA_DEVICE_MAX_CONNECTIONS allows it";
  }
  for (const std::string& error : errors) EXPECT_THAT(error, HasSubstr("4 ranks that are threads"));
}

}  // namespace
}  // namespace annulus::comm
