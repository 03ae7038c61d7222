#pragma once

#include <annulus/plan.h>

#include <cstdint>
#include <vector>

namespace annulus::attn {

struct AttendShape {
  std::int64_t rows = 0;
  std::int32_t dim = 0;
  std::int32_t dim_v = 0;
  std::int32_t group = 1;  ///< query heads a key/value head
};

/// What an attend task reads and writes. Shared by the builder and nobody else: the checker trusts
/// RankPlan::accesses, and tests compare them with what kernels touch.
std::vector<Access> attend_accesses(const Attend& attend, const std::vector<Segment>& keys,
                                    const AttendShape& shape);

}  // namespace annulus::attn
