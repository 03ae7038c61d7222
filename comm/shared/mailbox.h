#pragma once

#include "comm/transport.h"

#include <array>
#include <atomic>
#include <cstdint>

namespace annulus::comm::shared {

/// A region inside an arena that both ends have mapped; `arena` < 0: not in one.
struct Place {
  std::int32_t arena = -1;
  std::int64_t offset = 0;  ///< of Region::base
  std::array<std::int64_t, 3> count{};
  std::array<std::int64_t, 3> stride{};
  std::int64_t run = 0;
};

/// What the two ends of a transfer tell each other.
enum class Word : std::int32_t {
  offer,      ///< sender: it is there, at `place` if that is in an arena
  fetched,    ///< receiver: it has read it
  push,       ///< receiver: write it to `place`
  pushed,     ///< sender: it is written
  otherwise,  ///< receiver: neither end is in an arena, send it by messages
};

struct Message {
  Word word = Word::offer;
  std::int32_t tag = 0;
  Transport::Ticket sender = -1;    ///< the sender's ticket
  Transport::Ticket receiver = -1;  ///< the receiver's, once it is known
  std::int64_t bytes = 0;
  Place place{};
};

/// A queue in shared memory with one process that writes and one that reads, in order. All zeros is
/// an empty one.
class Mailbox {
 public:
  /// False while it is full.
  bool put(const Message& message) {
    const std::uint32_t at = written_.load(std::memory_order_relaxed);
    if (at - read_.load(std::memory_order_acquire) == kSlots) return false;
    slots_[at % kSlots] = message;
    written_.store(at + 1, std::memory_order_release);
    return true;
  }

  bool empty() const {
    return read_.load(std::memory_order_relaxed) == written_.load(std::memory_order_acquire);
  }

  /// False while it is empty.
  bool take(Message& message) {
    const std::uint32_t at = read_.load(std::memory_order_relaxed);
    if (at == written_.load(std::memory_order_acquire)) return false;
    message = slots_[at % kSlots];
    read_.store(at + 1, std::memory_order_release);
    return true;
  }

 private:
  static constexpr std::uint32_t kSlots = 64;
  static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

  alignas(64) std::atomic<std::uint32_t> written_{0};
  alignas(64) std::atomic<std::uint32_t> read_{0};
  alignas(64) std::array<Message, kSlots> slots_{};
};

}  // namespace annulus::comm::shared
