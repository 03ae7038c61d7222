#pragma once

#include <cstddef>
#include <cstdint>

namespace annulus::comm::peer {

/// Every byte of a signal that ends any wait: a watch fills signals with it.
constexpr int kRaisedByte = 0x7f;

/// What a plan's signals hold: its hash, cut to 30 bits, never 0. A wait for it is over when the
/// word is no less, as signed numbers that wrap: at this value, at kRaisedByte's, and at some of
/// other plans. Of two ranks whose plans differ each waits for the other in every transfer between
/// them, and the one with the larger value stands still: its watch sees the other plan's value
/// there.
constexpr std::uint32_t signal_value(std::uint32_t hash) {
  const std::uint32_t value = hash & 0x3fffffffU;
  return value == 0 ? 1 : value;
}

/// What stands in each rank's control memory: signals, then the abort word, notes and counters. A
/// signal has one writer and one waiter: the entry is named by the writer, what it says, and the
/// transfer's tag, so that whatever plan comes next can never meet a signal of the last one:
/// `ready` entries are consumed before their writer's call ends, and `free` entries before this
/// rank's call ends, without which the writer gets no further `ready`. Pushes have entries of their
/// own: `there` is consumed before this rank raises `open` again, without which the writer does not
/// raise another; `open` before the writer hears `there`. A sender that pushed may have ended its
/// call and raised `ready` in the next one before `there` is consumed.
class ControlBlock {
 public:
  static constexpr std::int32_t kTags = 4096;  ///< transfers between two ranks in one plan
  static constexpr int kCounters = 8;

  ControlBlock() = default;
  ControlBlock(std::byte* base, int world) : base_(base), world_(world) {}

  /// False: the rank's memory cannot be addressed.
  explicit operator bool() const { return base_ != nullptr; }

  static std::int64_t bytes(int world) { return signal_bytes(world) + 256; }

  /// Raised by `sender`: the source may be read.
  std::uint32_t* ready(int sender, std::int32_t tag) const { return entry(2 * sender, tag); }
  /// Raised by `receiver`: the source may be overwritten.
  std::uint32_t* free(int receiver, std::int32_t tag) const { return entry(2 * receiver + 1, tag); }
  /// Raised by `receiver`: the destination may be written.
  std::uint32_t* open(int receiver, std::int32_t tag) const {
    return entry(2 * (world_ + receiver), tag);
  }
  /// Raised by `sender`: it was written.
  std::uint32_t* there(int sender, std::int32_t tag) const {
    return entry(2 * (world_ + sender) + 1, tag);
  }

  std::int64_t signal_words() const { return signal_bytes(world_) / 4; }
  std::uint32_t* signals() const { return reinterpret_cast<std::uint32_t*>(base_); }
  /// Nonzero: a rank gave up, results are void. Kernels read it while they wait.
  std::uint32_t* abort() const {
    return reinterpret_cast<std::uint32_t*>(base_ + signal_bytes(world_));
  }
  /// What this rank's stream of that lane waits for (LinkStream::awaited). Only its GPU writes it.
  std::uint32_t* awaited(int lane) const { return abort() + kFirstNote + lane; }
  /// The abort word and the notes, as one copy takes them.
  static constexpr int kFirstNote = 8;  ///< in another sector than the word that kernels read
  static constexpr int kLanes = 2;
  static constexpr int kToldWords = kFirstNote + kLanes;
  /// Executed FLOPs, by pass.
  std::int64_t* counter(int index) const {
    return reinterpret_cast<std::int64_t*>(base_ + signal_bytes(world_) + 64) + index;
  }

 private:
  static std::int64_t signal_bytes(int world) { return std::int64_t{world} * 4 * kTags * 4; }
  std::uint32_t* entry(int row, std::int32_t tag) const {
    return reinterpret_cast<std::uint32_t*>(base_) + std::int64_t{row} * kTags + tag;
  }

  std::byte* base_ = nullptr;
  int world_ = 0;
};

}  // namespace annulus::comm::peer
