#include "attention/execute/cuda/device_transfers.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <cstdint>
#include <map>
#include <memory>
#include <utility>

namespace annulus::attn {
namespace {

/// A peer's plan and slots, and its sends to one rank.
class Peer {
 public:
  Peer(const Plan& plan, int peer, int rank, std::byte* arena)
      : plan_(plan.rank(peer)), memory_(plan_, plan.request().problem.batch, arena) {
    for (std::size_t i = 0; i < plan_.transfers.size(); ++i) {
      const Transfer& t = plan_.transfers[i];
      if (t.peer == rank && t.sends) sends_[t.tag] = i;
    }
  }

  comm::Region source(std::int32_t tag) const {
    return memory_.region(plan_.transfers[sends_.at(tag)].block);
  }

 private:
  RankPlan plan_;
  Memory memory_;
  std::map<std::int32_t, std::size_t> sends_;
};

void require_arena(const RankPlan& rank, const Transfer& t) {
  const PlanSlot& slot = rank.slots[static_cast<std::size_t>(t.block.slot)];
  if (slot.space != Space::caller) return;
  throw Unsupported(fmt::format(
      "rank {}: a transfer touches the caller's {}: plan with stage_caller", rank.rank, slot.name));
}

}  // namespace

std::vector<comm::DeviceTransfer> device_transfers(const Plan& plan, const RankPlan& rank,
                                                   const Memory& memory,
                                                   const std::function<std::byte*(int)>& arena_of) {
  std::map<int, std::unique_ptr<Peer>> peers;
  std::vector<comm::DeviceTransfer> transfers;
  for (const Transfer& t : rank.transfers) {
    require_arena(rank, t);
    transfers.push_back({t.sends, t.peer, t.tag, t.round, memory.region(t.block), {}});
    std::byte* arena = t.sends ? nullptr : arena_of(t.peer);
    if (arena == nullptr) continue;
    std::unique_ptr<Peer>& peer = peers[t.peer];
    if (!peer) peer = std::make_unique<Peer>(plan, t.peer, rank.rank, arena);
    transfers.back().theirs = peer->source(t.tag);
  }
  return transfers;
}

}  // namespace annulus::attn
