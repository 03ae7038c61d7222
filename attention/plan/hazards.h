#pragma once

#include <annulus/plan.h>

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace annulus::attn {

bool overlaps(const Block& a, const Block& b);

/// True if every element of `b` is in `a`.
bool covers(const Block& a, const Block& b);

/// Takes from `block` what `write` covers, where one block is left: a prefix or suffix of its
/// tokens, heads or dims goes. False if nothing could be taken.
bool trim(Block& block, const Block& write);

/// An access that later ones may have to wait for.
struct LiveAccess {
  std::int32_t item = 0;
  int call = 0;
  Block block;
};

/// Live accesses of one slot, found by their tokens: a gather of a thousand ranks writes thousands
/// of blocks into one slot.
class LiveSet {
 public:
  template <typename Fn>
  void for_overlapping(const Block& block, Fn fn) const {
    const auto [begin, end] = candidates(block);
    for (std::size_t i = begin; i < end; ++i) {
      const LiveAccess& live = pool_[keys_[i].at];
      if (overlaps(live.block, block)) fn(live);
    }
  }

  void add(const LiveAccess& live);

  /// Forgets what `write` covers: whoever is ordered after the write is ordered after that.
  void cut(const Block& write);

 private:
  struct Key {
    std::int64_t token;
    std::uint32_t at;
  };
  /// Those whose first token is near enough to overlap.
  std::pair<std::size_t, std::size_t> candidates(const Block& block) const;
  void insert(std::uint32_t at);

  std::vector<Key> keys_;  ///< by first token
  std::vector<LiveAccess> pool_;
  std::vector<std::uint32_t> free_;
  std::int64_t longest_ = 0;  ///< tokens from first to last of any
};

/// Derives edges from what items touch: visited in enqueue order, an item waits for every earlier
/// one with a conflicting access. Plan builders never write an edge by hand.
class HazardTracker {
 public:
  HazardTracker(std::size_t slots, std::size_t items) : slots_(slots), seen_(2 * items, 0) {}

  /// Appends the items that `item` must wait for to `same` (this call) or `previous` (the one
  /// before), then remembers its accesses.
  void visit(std::int32_t item, std::span<const Access> accesses, std::vector<std::int32_t>& same,
             std::vector<std::int32_t>& previous);

  /// From here on, what was visited belongs to the previous call.
  void next_call() { ++call_; }

 private:
  struct Slot {
    LiveSet reads;
    LiveSet writes;
  };

  std::vector<Slot> slots_;
  std::vector<std::uint32_t> seen_;  ///< by item and call: the last visit that listed it
  std::uint32_t visits_ = 0;
  int call_ = 0;
};

}  // namespace annulus::attn
