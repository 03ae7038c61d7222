#pragma once

#include <annulus/plan.h>

#include <cstdint>
#include <vector>

// What an attend says and is told while it runs.
namespace annulus::attn {

/// Of an attend item that may start before its keys are there (Attend::on_arrival): the transfers
/// that bring them, in plan order. Its counter holds how many of them are over. Empty for others.
std::vector<std::int32_t> arrivals_of(const RankPlan& plan, const Item& item);

/// Key/value heads [first, end) of an attend, counted as its kernel does.
struct HeadSpan {
  std::int32_t attend = -1;  ///< payload; -1: none
  std::int32_t first = 0;
  std::int32_t end = 0;
  bool operator==(const HeadSpan&) const = default;
};

/// What transfer item `item` sends of the dk and dv of attend item `from`, if that is done head by
/// head (Attend::by_head).
HeadSpan heads_sent(const RankPlan& plan, const Item& item, const Item& from);

/// The same of the attend among those that it waits for, if there is one.
HeadSpan heads_sent(const RankPlan& plan, const Item& item);

/// KeySegment::needed of each key segment of an attend: how many of `arrivals` must be over.
std::vector<std::vector<std::uint32_t>> arrivals_needed(const RankPlan& plan, const Attend& attend,
                                                        std::int32_t kv_head, std::int32_t kv_heads,
                                                        const std::vector<std::int32_t>& arrivals);

}  // namespace annulus::attn
