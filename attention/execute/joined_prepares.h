#pragma once

#include "attention/execute/schedule.h"

#include <annulus/plan.h>

#include <cstdint>
#include <vector>

namespace annulus::attn {

/// So many prepares are one launch at most.
inline constexpr int kMostJoined = 8;

/// A prepare that a launch of several can do: a copy or conversion of rows. Row sums beside them
/// would take the registers of all (128 each, and some spilled).
bool may_join(const RankPlan& plan, const Step& step);

/// By step: how many steps, from this one on, are one launch: prepares that stand next to each
/// other on a lane, such as K and V that are packed, and need nothing of each other. 1
/// for all others, and for those that an earlier step takes along.
std::vector<std::int32_t> joined_prepares(const RankPlan& plan, const Schedule& schedule);

}  // namespace annulus::attn
