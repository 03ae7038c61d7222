#pragma once

#include <annulus/plan.h>

#include <cstdint>
#include <vector>

namespace annulus::attn {

/// Of an attend item that may start before its keys are there (Attend::on_arrival): the transfers
/// that bring them, in plan order. Its counter holds how many of them are over. Empty for others.
std::vector<std::int32_t> arrivals_of(const RankPlan& plan, const Item& item);

/// KeySegment::needed of each key segment of an attend: how many of `arrivals` must be over.
std::vector<std::vector<std::uint32_t>> arrivals_needed(const RankPlan& plan, const Attend& attend,
                                                        std::int32_t kv_head, std::int32_t kv_heads,
                                                        const std::vector<std::int32_t>& arrivals);

}  // namespace annulus::attn
