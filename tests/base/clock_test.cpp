#include "runtime/base/clock.h"

#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <thread>

namespace annulus {
namespace {

TEST(Deadline, ExpiresAfterItsTime) {
  const Deadline deadline(0.02);
  EXPECT_FALSE(deadline.expired());
  EXPECT_GT(deadline.remaining_s(), 0.0);
  std::this_thread::sleep_for(std::chrono::milliseconds(25));
  EXPECT_TRUE(deadline.expired());
  EXPECT_EQ(deadline.remaining_s(), 0.0);
  EXPECT_GE(deadline.elapsed_s(), 0.02);
}

TEST(Deadline, InfiniteNeverExpires) {
  EXPECT_FALSE(Deadline(std::numeric_limits<double>::infinity()).expired());
  EXPECT_FALSE(Deadline(1e300).expired());
}

TEST(Deadline, ZeroIsExpiredAtOnce) { EXPECT_TRUE(Deadline(0.0).expired()); }

}  // namespace
}  // namespace annulus
