#include "attention/plan/hazards.h"

#include <algorithm>

namespace annulus::attn {
namespace {

template <typename T>
bool meet(T begin_a, T count_a, T begin_b, T count_b) {
  return begin_a < begin_b + count_b && begin_b < begin_a + count_a;
}

template <typename T>
bool within(T begin_a, T count_a, T begin_b, T count_b) {
  return begin_a <= begin_b && begin_b + count_b <= begin_a + count_a;
}

std::int64_t span_of(const Block& block) { return (block.tokens - 1) * block.token_step + 1; }

}  // namespace

bool overlaps(const Block& a, const Block& b) {
  if (a.slot != b.slot || a.tokens == 0 || b.tokens == 0) return false;
  // Interleaved stripes of one step never meet unless they start on the same residue.
  if (a.token_step == b.token_step && a.token_step > 1 && (a.token - b.token) % a.token_step != 0) {
    return false;
  }
  return meet(a.token, span_of(a), b.token, span_of(b)) && meet(a.head, a.heads, b.head, b.heads) &&
         meet(a.dim, a.dims, b.dim, b.dims);
}

bool covers(const Block& a, const Block& b) {
  if (b.tokens == 0) return true;
  const bool tokens = a.token_step == 1 ? within(a.token, a.tokens, b.token, span_of(b))
                                        : a.token == b.token && a.token_step == b.token_step &&
                                              a.tokens >= b.tokens;
  return a.slot == b.slot && a.tokens > 0 && tokens && within(a.head, a.heads, b.head, b.heads) &&
         within(a.dim, a.dims, b.dim, b.dims);
}

void HazardTracker::depend(const Live& live, const Block& block, std::int32_t item,
                           std::vector<std::int32_t>& same,
                           std::vector<std::int32_t>& previous) const {
  if (live.call == call_ && live.item == item) return;
  if (!overlaps(live.block, block)) return;
  std::vector<std::int32_t>& list = live.call == call_ ? same : previous;
  if (std::find(list.begin(), list.end(), live.item) == list.end()) list.push_back(live.item);
}

void HazardTracker::visit(std::int32_t item, std::span<const Access> accesses,
                          std::vector<std::int32_t>& same, std::vector<std::int32_t>& previous) {
  for (const Access& access : accesses) {
    const Slot& slot = slots_[static_cast<std::size_t>(access.block.slot)];
    for (const Live& live : slot.writes) depend(live, access.block, item, same, previous);
    if (access.mode == AccessMode::read) continue;
    for (const Live& live : slot.reads) depend(live, access.block, item, same, previous);
  }
  for (const Access& access : accesses) {
    Slot& slot = slots_[static_cast<std::size_t>(access.block.slot)];
    if (access.mode == AccessMode::read) {
      slot.reads.push_back({item, call_, access.block});
      continue;
    }
    // Whoever is ordered after this write is ordered after all that it covers.
    const auto covered = [&](const Live& live) { return covers(access.block, live.block); };
    std::erase_if(slot.reads, covered);
    std::erase_if(slot.writes, covered);
    slot.writes.push_back({item, call_, access.block});
  }
}

}  // namespace annulus::attn
