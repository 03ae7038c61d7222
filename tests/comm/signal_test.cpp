// What signals between GPUs hold, and when a stream's wait for one is over.

#include "comm/peer/control_block.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>

namespace annulus::comm::peer {
namespace {

/// CU_STREAM_WAIT_VALUE_GEQ, as its documentation has it.
bool ends_wait(std::uint32_t word, std::uint32_t wanted) {
  return static_cast<std::int32_t>(word - wanted) >= 0;
}

constexpr std::uint32_t kRaised = 0x01010101U * kRaisedByte;

TEST(Signal, IsNeverZeroAndIsEndedByItsPlanAndByAWatch) {
  std::mt19937 engine(3);
  for (std::uint32_t hash : {0U, 1U, 0x40000000U, 0x7fffffffU, 0xffffffffU}) {
    for (int i = 0; i < 1000; ++i, hash = static_cast<std::uint32_t>(engine())) {
      const std::uint32_t value = signal_value(hash);
      ASSERT_NE(value, 0U);
      ASSERT_TRUE(ends_wait(value, value));
      ASSERT_FALSE(ends_wait(0, value));
      ASSERT_TRUE(ends_wait(kRaised, value));
    }
  }
}

TEST(Signal, OfTwoPlansHoldsUpOneOfTheRanks) {
  std::mt19937 engine(4);
  for (int i = 0; i < 10000; ++i) {
    const std::uint32_t a = signal_value(static_cast<std::uint32_t>(engine()));
    const std::uint32_t b = signal_value(static_cast<std::uint32_t>(engine()));
    if (a == b) continue;
    ASSERT_NE(ends_wait(a, b), ends_wait(b, a)) << a << " " << b;
  }
}

}  // namespace
}  // namespace annulus::comm::peer
