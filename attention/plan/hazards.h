#pragma once

#include <annulus/plan.h>

#include <cstdint>
#include <span>
#include <vector>

namespace annulus::attn {

bool overlaps(const Block& a, const Block& b);

/// True if every element of `b` is in `a`.
bool covers(const Block& a, const Block& b);

/// Derives edges from what items touch: visited in enqueue order, an item waits for every earlier
/// one with a conflicting access. Plan builders never write an edge by hand.
class HazardTracker {
 public:
  explicit HazardTracker(std::size_t slots) : slots_(slots) {}

  /// Appends the items that `item` must wait for to `same` (this call) or `previous` (the one
  /// before), then remembers its accesses.
  void visit(std::int32_t item, std::span<const Access> accesses, std::vector<std::int32_t>& same,
             std::vector<std::int32_t>& previous);

  /// From here on, what was visited belongs to the previous call.
  void next_call() { ++call_; }

 private:
  struct Live {
    std::int32_t item;
    int call;
    Block block;
  };
  struct Slot {
    std::vector<Live> reads;
    std::vector<Live> writes;
  };
  void depend(const Live& live, const Block& block, std::int32_t item,
              std::vector<std::int32_t>& same, std::vector<std::int32_t>& previous) const;

  std::vector<Slot> slots_;
  int call_ = 0;
};

}  // namespace annulus::attn
