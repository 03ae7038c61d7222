#pragma once

#include "attention/execute/schedule.h"

#include <cstdint>
#include <map>
#include <vector>

namespace annulus::attn {

/// What an attend takes as it arrives (arrivals_of), and how.
struct ArrivalGroup {
  std::vector<std::int32_t> transfers;
  std::vector<std::int32_t> sends;  ///< pushed: what this rank pushes meanwhile
  bool told = false;                ///< the kernel is told how far they are; else it waits for all
  bool pulled = false;              ///< this rank moves them
};

/// By attend item. Kernels are told where all transfers run beside them and all are moved by this
/// rank, or all by others while it moves what leaves in the same rounds.
std::map<std::int32_t, ArrivalGroup> arrival_groups(const RankPlan& plan,
                                                    const std::vector<TransferTraits>& traits);

/// How many ranks these go to.
int receivers_of(const RankPlan& plan, const std::vector<std::int32_t>& sends);

}  // namespace annulus::attn
