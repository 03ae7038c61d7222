#pragma once

#include <cstddef>
#include <cstdint>

namespace annulus::comm::peer {

/// What stands in each rank's control memory: signals, then the abort word and counters. A signal
/// has one writer and one waiter: the entry is named by the writer, what it says, and the
/// transfer's tag, so that whatever plan comes next can never meet a signal of the last one:
/// `ready` entries are consumed before their writer's call ends, and `free` entries before this
/// rank's call ends, without which the writer gets no further `ready`.
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

  std::int64_t signal_words() const { return signal_bytes(world_) / 4; }
  std::uint32_t* signals() const { return reinterpret_cast<std::uint32_t*>(base_); }
  /// Nonzero: a rank gave up, results are void. Kernels read it while they wait.
  std::uint32_t* abort() const {
    return reinterpret_cast<std::uint32_t*>(base_ + signal_bytes(world_));
  }
  /// Executed FLOPs, by pass.
  std::int64_t* counter(int index) const {
    return reinterpret_cast<std::int64_t*>(base_ + signal_bytes(world_) + 64) + index;
  }

 private:
  static std::int64_t signal_bytes(int world) { return std::int64_t{world} * 2 * kTags * 4; }
  std::uint32_t* entry(int row, std::int32_t tag) const {
    return reinterpret_cast<std::uint32_t*>(base_) + std::int64_t{row} * kTags + tag;
  }

  std::byte* base_ = nullptr;
  int world_ = 0;
};

}  // namespace annulus::comm::peer
