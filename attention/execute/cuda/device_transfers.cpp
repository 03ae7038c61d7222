#include "attention/execute/cuda/device_transfers.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <cstdint>
#include <map>
#include <memory>
#include <utility>

namespace annulus::attn {
namespace {

/// A peer's plan and slots, and its transfers with one rank.
class Peer {
 public:
  Peer(const Plan& plan, int peer, int rank, std::byte* arena)
      : plan_(plan.rank(peer)), memory_(plan_, plan.request().problem.batch, arena) {
    for (std::size_t i = 0; i < plan_.transfers.size(); ++i) {
      const Transfer& t = plan_.transfers[i];
      if (t.peer == rank) (t.sends ? sends_ : receives_)[t.tag] = i;
    }
  }

  /// The other end of a transfer of that rank.
  comm::Region end_of(const Transfer& t) const {
    const auto& ends = t.sends ? receives_ : sends_;
    return memory_.region(plan_.transfers[ends.at(t.tag)].block);
  }

 private:
  RankPlan plan_;
  Memory memory_;
  std::map<std::int32_t, std::size_t> sends_;  ///< by tag
  std::map<std::int32_t, std::size_t> receives_;
};

/// The plan says that this end does.
bool moved_by(const Transfer& t) { return t.mover == (t.sends ? Mover::sender : Mover::receiver); }

void require_arena(const RankPlan& rank, const Transfer& t) {
  const PlanSlot& slot = rank.slots[static_cast<std::size_t>(t.block.slot)];
  if (slot.space != Space::caller || moved_by(t)) return;
  throw Unsupported(fmt::format(
      "rank {}: a transfer touches the caller's {}: plan with stage_caller", rank.rank, slot.name));
}

}  // namespace

std::vector<comm::DeviceTransfer> device_transfers(
    const Plan& plan, const RankPlan& rank, const Memory& memory,
    const std::function<TransferReach(const Transfer&)>& reach_of) {
  std::map<int, std::unique_ptr<Peer>> peers;
  std::vector<comm::DeviceTransfer> transfers;
  for (const Transfer& t : rank.transfers) {
    require_arena(rank, t);
    TransferReach reach = reach_of(t);
    if (t.mover != Mover::any) reach.pulls = t.mover == Mover::receiver;
    transfers.push_back({t.sends, t.peer, t.tag, t.round, memory.region(t.block), {}, reach.pulls});
    if (t.sends == reach.pulls || reach.arena == nullptr) continue;
    std::unique_ptr<Peer>& peer = peers[t.peer];
    if (!peer) peer = std::make_unique<Peer>(plan, t.peer, rank.rank, reach.arena);
    transfers.back().theirs = peer->end_of(t);
  }
  return transfers;
}

std::map<Role, std::vector<std::int32_t>> caller_transfers(const RankPlan& rank) {
  std::map<Role, std::vector<std::int32_t>> found;
  for (std::size_t i = 0; i < rank.transfers.size(); ++i) {
    const Block& block = rank.transfers[i].block;
    const PlanSlot& slot = rank.slots[static_cast<std::size_t>(block.slot)];
    if (slot.space == Space::caller) found[slot.role].push_back(static_cast<std::int32_t>(i));
  }
  return found;
}

}  // namespace annulus::attn
