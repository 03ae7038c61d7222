#pragma once

#include "attention/execute/schedule.h"

#include <annulus/trace.h>

#include <span>
#include <vector>

namespace annulus::attn {

/// When the stream of a step came to it and when it had passed it, in seconds.
struct StepTime {
  double begin_s = 0;
  double end_s = 0;
};

/// Pure: a sample for each item, from the times of the schedule's steps. Transfers of one launch
/// share its time; one by flag begins where the flag was raised and ends with the wait for the
/// other end. Of those that arrive while a kernel runs, the first has the wait for their sources.
std::vector<ItemSample> item_samples(const RankPlan& plan,
                                     const std::vector<TransferTraits>& traits,
                                     const Schedule& schedule, std::span<const StepTime> times);

/// A kernel of the schedule takes keys while they arrive: its time holds what it waits for them.
bool waits_inside(const Schedule& schedule);

}  // namespace annulus::attn
