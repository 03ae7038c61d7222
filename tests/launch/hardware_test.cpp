// What `bench` makes of the counters' readings; the readings themselves are
// tests/gpu/counters_gpu's.

#include "launch/bench/hardware.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace annulus::launch {
namespace {

TEST(Hardware, EfficiencyIsTheNaiveKernelsBytesOverAnothersOfAllRanks) {
  const std::vector<std::int64_t> naive{300, 500};
  EXPECT_DOUBLE_EQ(memory_efficiency(naive, std::vector<std::int64_t>{10, 30}), 20.0);
  EXPECT_DOUBLE_EQ(memory_efficiency(naive, naive), 1.0);
  EXPECT_DOUBLE_EQ(memory_efficiency(naive, {}), 0.0);
}

TEST(Hardware, TheNaiveKernelRunsWhereItsScoresTakeAtMostFourGiB) {
  const Problem p{.batch = 2, .seq = 8192, .heads = 4, .head_dim = 64};  // 8 bytes a pair: 4 GiB
  EXPECT_TRUE(naive_fits(p, 1));
  Problem more = p;
  more.seq_kv = 8193;
  EXPECT_FALSE(naive_fits(more, 1));
  EXPECT_TRUE(naive_fits(more, 2));
}

}  // namespace
}  // namespace annulus::launch
