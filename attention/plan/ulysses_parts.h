#pragma once

#include "attention/plan/builder.h"
#include "attention/plan/head_slices.h"

#include <cstdint>
#include <vector>

namespace annulus::attn {

// Who holds what in a ulysses group.

/// The members of this rank's group, itself excluded, starting after it so that not all ranks turn
/// to the same one.
std::vector<int> peers(const RankBuilder& b);
int rank_of(const RankBuilder& b, int member);
HeadRange heads_of(const RankBuilder& b, int member, bool keys);
/// Of a tensor of all heads: no more than it takes to hold, side by side, those that other members
/// read.
HeadRange heads_of_others(const RankBuilder& b, bool keys);
/// Tokens of a group slot that belong to a member.
Block tokens_of(const RankBuilder& b, const Block& block, int member, bool keys);

// Heads in slices: Plan::Impl::slice_ends, cut off where a member has fewer.

int slices_of(const RankBuilder& b);
/// Query heads of a member's slice i.
HeadRange slice_rows(const RankBuilder& b, int member, int i);
/// Key/value heads that slice i of a member is the first to read.
HeadRange slice_keys(const RankBuilder& b, int member, int i);

/// Heads of a slot that holds those from `origin` on.
inline Block heads_in(const Block& block, HeadRange heads, std::int32_t origin = 0) {
  return with_heads(block, heads.first - origin, heads.count);
}

/// What decides the slices of a plan of one group, whose heads are split already. Pairs are counted
/// only where slices are chosen.
SliceCase slice_case(const Plan::Impl& plan);

}  // namespace annulus::attn
