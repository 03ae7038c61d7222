// Exposed time, overlap and clocks on hand-made samples whose answers are known.

#include "tests/trace/hand_made.h"

#include <gtest/gtest.h>

#include <vector>

namespace annulus::test {
namespace {

constexpr double kNear = 1e-12;

void expect(const Exposure& e, double compute, double transfer, double exposed, double idle) {
  EXPECT_NEAR(e.compute_s, compute, kNear);
  EXPECT_NEAR(e.transfer_s, transfer, kNear);
  EXPECT_NEAR(e.exposed_s, exposed, kNear);
  EXPECT_NEAR(e.idle_s, idle, kNear);
  EXPECT_NEAR(e.compute_s + e.exposed_s + e.idle_s, e.call_s, kNear);
}

TEST(Exposure, IsWhatNoComputeCovers) {
  const HandMade rank = HandMade(0).computes().receives(1, 0).computes();
  // Computes 0 to 3 and 7 to 9, waits for a transfer from 1 to 7, ends with 1 of nothing.
  expect(exposure_of(rank.plan(), call(0, 10, {{0, 3}, {1, 7}, {7, 9}})), 5, 6, 4, 1);
}

TEST(Exposure, OfHiddenTransfersIsNothing) {
  const HandMade rank = HandMade(0).computes().receives(1, 0).sends(1, 0);
  expect(exposure_of(rank.plan(), call(5, 9, {{5, 9}, {5, 8}, {6, 9}})), 4, 4, 0, 0);
}

TEST(Exposure, CountsTransfersThatRunTogetherOnce) {
  const HandMade rank = HandMade(0).receives(1, 0).receives(2, 0).sends(1, 0).computes();
  expect(exposure_of(rank.plan(), call(0, 8, {{0, 3}, {1, 4}, {3.5, 5}, {5, 8}})), 3, 5, 5, 0);
}

TEST(Exposure, OfNothingIsIdle) {
  expect(exposure_of(HandMade(0).plan(), call(1, 3, {})), 0, 0, 0, 2);
}

TEST(Exposure, CountsFlagsFromWhereTheStreamWaits) {
  const HandMade rank = HandMade(0).sends(1, 0).computes().computes();
  // Raised at 0, answered at 6; the stream came to the wait at 5, after a pause from 2 to 3.
  expect(exposure_of(rank.plan(), call(0, 8, {{0, 6, 5}, {0, 2}, {3, 5}})), 4, 1, 1, 3);
}

TEST(Exposure, EndsWithTheCall) {
  const HandMade rank = HandMade(0).receives(1, 0).computes();
  expect(exposure_of(rank.plan(), call(2, 6, {{1, 7}, {0, 3}})), 1, 4, 3, 0);
}

TEST(Exposure, HasWhatKernelsWaitedInside) {
  const HandMade rank = HandMade(0).receives(1, 0).computes();
  // The kernel runs from 1 to 7 beside a transfer from 0 to 5: of 6 it stood still for 2.
  CallTrace trace = call(0, 8, {{0, 5}, {1, 7}});
  trace.waits_inside = true;
  EXPECT_TRUE(trace.waits_uncounted());
  expect(exposure_of(rank.plan(), trace), 6, 5, 1, 1);
  trace.waited_s = 2;
  EXPECT_FALSE(trace.waits_uncounted());
  expect(exposure_of(rank.plan(), trace), 4, 5, 3, 1);
  trace.waited_s = 9;  // clocks differ: no more than what is under way beside the kernel
  expect(exposure_of(rank.plan(), trace), 2, 5, 5, 1);
  trace.waited_s = 0;
  expect(exposure_of(rank.plan(), trace), 6, 5, 1, 1);
}

TEST(Overlap, IsTheHiddenShareOfTheTransfersAlone) {
  EXPECT_NEAR(*overlap_of(1, 4), 0.75, kNear);
  EXPECT_NEAR(*overlap_of(0, 4), 1, kNear);
  EXPECT_NEAR(*overlap_of(6, 4), -0.5, kNear);  // waiting for slower ranks
  EXPECT_FALSE(overlap_of(0, 0).has_value());
}

TEST(Clocks, AreTakenFromTheShortestRoundTrip) {
  // There and back in 4, 2 and 8; the other clock is 100 ahead, and one way took longer.
  const std::vector<ClockProbe> probes{{0, 103, 4}, {10, 111.5, 12}, {20, 127, 28}};
  const ClockOffset offset = clock_offset_of(probes, false);
  EXPECT_NEAR(offset.offset_s, 100.5, kNear);
  EXPECT_NEAR(offset.error_s, 1, kNear);
}

TEST(Clocks, OfOneMachineAreOne) {
  const std::vector<ClockProbe> probes{{0, 1.3, 2}};
  EXPECT_EQ(clock_offset_of(probes, true).offset_s, 0);
  EXPECT_EQ(clock_offset_of(probes, true).error_s, 0);
  EXPECT_NEAR(clock_offset_of(probes, false).offset_s, 0.3, kNear);
  // A time namespace: no error of the probes explains that.
  EXPECT_NEAR(clock_offset_of(std::vector<ClockProbe>{{0, 51, 2}}, true).offset_s, 50, kNear);
}

}  // namespace
}  // namespace annulus::test
