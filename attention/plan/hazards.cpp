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

/// Removes [begin_b, begin_b + count_b) from one end of [begin_a, begin_a + count_a), some of which
/// has to be left.
template <typename T>
bool take_end(T& begin_a, T& count_a, T begin_b, T count_b) {
  const T end_a = begin_a + count_a;
  const T end_b = begin_b + count_b;
  if (begin_b <= begin_a && begin_a < end_b && end_b < end_a) {
    count_a = end_a - end_b;
    begin_a = end_b;
    return true;
  }
  if (begin_a < begin_b && begin_b < end_a && end_a <= end_b) {
    count_a = begin_b - begin_a;
    return true;
  }
  return false;
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

bool trim(Block& block, const Block& write) {
  const bool tokens =
      write.token_step == 1 && within(write.token, write.tokens, block.token, span_of(block));
  const bool heads = within(write.head, write.heads, block.head, block.heads);
  const bool dims = within(write.dim, write.dims, block.dim, block.dims);
  if (heads && dims && write.token_step == 1 && block.token_step == 1) {
    return take_end(block.token, block.tokens, write.token, write.tokens);
  }
  if (tokens && dims) return take_end(block.head, block.heads, write.head, write.heads);
  if (tokens && heads) return take_end(block.dim, block.dims, write.dim, write.dims);
  return false;
}

void LiveSet::add(const LiveAccess& live) {
  std::uint32_t at = static_cast<std::uint32_t>(pool_.size());
  if (free_.empty()) {
    pool_.push_back(live);
  } else {
    at = free_.back();
    free_.pop_back();
    pool_[at] = live;
  }
  insert(at);
}

void LiveSet::insert(std::uint32_t at) {
  const Block& block = pool_[at].block;
  longest_ = std::max(longest_, span_of(block));
  const auto place = std::upper_bound(keys_.begin(), keys_.end(), block.token,
                                      [](std::int64_t token, Key k) { return token < k.token; });
  keys_.insert(place, {block.token, at});
}

std::pair<std::size_t, std::size_t> LiveSet::candidates(const Block& block) const {
  const auto first = [&](std::int64_t token) {
    const auto at = std::lower_bound(keys_.begin(), keys_.end(), token,
                                     [](Key k, std::int64_t t) { return k.token < t; });
    return static_cast<std::size_t>(at - keys_.begin());
  };
  return {first(block.token - longest_ + 1), first(block.token + span_of(block))};
}

void LiveSet::cut(const Block& write) {
  const auto [begin, end] = candidates(write);
  std::size_t kept = begin;
  std::vector<std::uint32_t> moved;
  for (std::size_t i = begin; i < end; ++i) {
    const Key key = keys_[i];
    Block& block = pool_[key.at].block;
    if (covers(write, block)) {
      free_.push_back(key.at);
    } else if (overlaps(write, block) && trim(block, write) && block.token != key.token) {
      moved.push_back(key.at);
    } else {
      keys_[kept++] = key;
    }
  }
  keys_.erase(keys_.begin() + static_cast<std::ptrdiff_t>(kept),
              keys_.begin() + static_cast<std::ptrdiff_t>(end));
  for (const std::uint32_t at : moved) insert(at);
}

void HazardTracker::visit(std::int32_t item, std::span<const Access> accesses,
                          std::vector<std::int32_t>& same, std::vector<std::int32_t>& previous) {
  ++visits_;
  const auto depend = [&](const LiveAccess& live) {
    if (live.call == call_ && live.item == item) return;
    std::uint32_t& seen = seen_[2 * static_cast<std::size_t>(live.item) + (live.call == call_)];
    if (seen == visits_) return;
    seen = visits_;
    (live.call == call_ ? same : previous).push_back(live.item);
  };
  for (const Access& access : accesses) {
    const Slot& slot = slots_[static_cast<std::size_t>(access.block.slot)];
    slot.writes.for_overlapping(access.block, depend);
    if (access.mode != AccessMode::read) slot.reads.for_overlapping(access.block, depend);
  }
  for (const Access& access : accesses) {
    Slot& slot = slots_[static_cast<std::size_t>(access.block.slot)];
    if (access.mode == AccessMode::read) {
      slot.reads.add({item, call_, access.block});
      continue;
    }
    slot.reads.cut(access.block);
    slot.writes.cut(access.block);
    slot.writes.add({item, call_, access.block});
  }
}

}  // namespace annulus::attn
