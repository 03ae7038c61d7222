#include "attention/execute/arrival_groups.h"

#include <algorithm>
#include <cstddef>
#include <set>

namespace annulus::attn {
namespace {

/// What leaves in the rounds in which these come.
std::vector<std::int32_t> sends_beside(const RankPlan& plan,
                                       const std::vector<std::int32_t>& arrivals) {
  std::set<std::int32_t> rounds;
  for (const std::int32_t t : arrivals) {
    rounds.insert(plan.transfers[static_cast<std::size_t>(t)].round);
  }
  std::vector<std::int32_t> sends;
  for (std::size_t t = 0; t < plan.transfers.size(); ++t) {
    if (plan.transfers[t].sends && rounds.contains(plan.transfers[t].round)) {
      sends.push_back(static_cast<std::int32_t>(t));
    }
  }
  return sends;
}

}  // namespace

std::map<std::int32_t, ArrivalGroup> arrival_groups(const RankPlan& plan,
                                                    const std::vector<TransferTraits>& traits) {
  const auto all = [&](const std::vector<std::int32_t>& list, bool by_flag) {
    return std::ranges::all_of(list, [&](std::int32_t t) {
      const TransferTraits& of = traits[static_cast<std::size_t>(t)];
      return of.beside_kernels && of.by_flag == by_flag;
    });
  };
  std::map<std::int32_t, ArrivalGroup> groups;
  for (std::size_t i = 0; i < plan.items.size(); ++i) {
    ArrivalGroup group{.transfers = arrivals_of(plan, plan.items[i]), .sends = {}};
    if (group.transfers.empty()) continue;
    group.pulled = all(group.transfers, false);
    if (!group.pulled) group.sends = sends_beside(plan, group.transfers);
    group.told = group.pulled || (all(group.transfers, true) && all(group.sends, false));
    groups.emplace(static_cast<std::int32_t>(i), std::move(group));
  }
  return groups;
}

int receivers_of(const RankPlan& plan, const std::vector<std::int32_t>& sends) {
  std::set<std::int32_t> peers;
  for (const std::int32_t t : sends) {
    peers.insert(plan.transfers[static_cast<std::size_t>(t)].peer);
  }
  return static_cast<int>(peers.size());
}

}  // namespace annulus::attn
