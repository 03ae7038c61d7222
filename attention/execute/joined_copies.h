#pragma once

#include "attention/execute/schedule.h"

#include <annulus/plan.h>

#include <cstdint>
#include <vector>

namespace annulus::attn {

/// So many copies of rows are one launch at most.
inline constexpr int kMostJoinedCopies = 4;

/// By step: how many steps, from this one on, are one launch: copies and conversions of rows that
/// stand next to each other on a lane, such as K and V that are packed, and need nothing of each
/// other. 1 for all others, and for those that an earlier step takes along.
std::vector<std::int32_t> joined_copies(const RankPlan& plan, const Schedule& schedule);

}  // namespace annulus::attn
