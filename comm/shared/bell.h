#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace annulus::comm::shared {

/// Wakes the one process that sleeps at it, across processes (futex(2) in shared memory). All zeros
/// is a fresh one.
///
/// A rank that waits asleep leaves its core idle, so that the kernel moves another rank there; one
/// that waits by sched_yield looks busy, and two ranks may share a core beside it.
class Bell {
 public:
  /// After what `ready` looks at has changed.
  void ring() {
    rings_.fetch_add(1, std::memory_order_seq_cst);
    if (sleeping_.load(std::memory_order_seq_cst) != 0) wake();
  }

  /// Sleeps until the next ring(), for `longest` at most, unless `ready()` is true already. A ring
  /// between that look and the sleep is not missed: the count has changed.
  template <typename Ready>
  void wait(std::chrono::microseconds longest, Ready ready) {
    sleeping_.store(1, std::memory_order_seq_cst);
    const std::uint32_t seen = rings_.load(std::memory_order_seq_cst);
    if (!ready()) sleep(seen, longest);
    sleeping_.store(0, std::memory_order_relaxed);
  }

 private:
  void wake();
  void sleep(std::uint32_t seen, std::chrono::microseconds longest);

  static_assert(std::atomic<std::uint32_t>::is_always_lock_free);
  alignas(64) std::atomic<std::uint32_t> rings_{0};
  std::atomic<std::uint32_t> sleeping_{0};
};

}  // namespace annulus::comm::shared
