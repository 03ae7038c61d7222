#pragma once

#include "attention/kernels/cpu/tally.h"
#include "attention/kernels/cpu/units.h"

#include <atomic>
#include <cstdint>
#include <limits>
#include <thread>
#include <vector>

namespace annulus::attn::cpu {

/// Orders the additions to dK and dV: units of a lane add to a key in the order of their steps,
/// whichever threads run them, so that the sums have the same bits for any thread count. Each unit
/// walks the keys upwards and says how far it is; one that follows adds behind it.
class KeyTurns {
 public:
  KeyTurns(const AttendGeometry& geometry, const Units& units)
      : steps_(units.steps()), reached_(static_cast<std::size_t>(units.count())) {
    std::int64_t keys = 0;
    for (const KeySegment& segment : geometry.keys) {
      first_.push_back(keys);
      keys += segment.count;
    }
    for (auto& reached : reached_) reached.store(-1, std::memory_order_relaxed);
  }

  /// `unit` adds nothing any more to keys before the least bound of its cursors.
  void publish(const Unit& unit, std::span<const KeyCursor> cursors) {
    std::int64_t least = kDone;
    for (const KeyCursor& cursor : cursors) {
      if (!cursor.done()) least = std::min(least, place(cursor.bound()));
    }
    at(unit, unit.step).store(least, std::memory_order_release);
  }

  /// Waits until all earlier units of the lane are past `keys`; false where the launch was given
  /// up. `open`: the first step that may not be done, kept from call to call. Units start in their
  /// order, so that the earliest of a lane is running and never waits.
  bool wait(const Unit& unit, const KeySpan& keys, std::int64_t& open, const Poller& poll) {
    const std::int64_t end = place(keys) + keys.keys;
    for (std::int64_t step = open; step < unit.step; ++step) {
      const auto& reached = at(unit, step);
      while (reached.load(std::memory_order_acquire) < end) {
        if (given_up_.load()) return false;
        poll();
        std::this_thread::yield();
      }
      if (step == open && reached.load(std::memory_order_acquire) == kDone) ++open;
    }
    return true;
  }

  void give_up() { given_up_.store(true); }

 private:
  static constexpr std::int64_t kDone = std::numeric_limits<std::int64_t>::max();

  /// Of a span's first key among all keys of the launch, in segment order.
  std::int64_t place(const KeySpan& keys) const {
    return first_[static_cast<std::size_t>(keys.segment)] + keys.key;
  }
  std::atomic<std::int64_t>& at(const Unit& unit, std::int64_t step) {
    return reached_[static_cast<std::size_t>(unit.lane * steps_ + step)];
  }

  std::int64_t steps_;
  std::vector<std::int64_t> first_;
  std::vector<std::atomic<std::int64_t>> reached_;
  std::atomic<bool> given_up_{false};
};

}  // namespace annulus::attn::cpu
