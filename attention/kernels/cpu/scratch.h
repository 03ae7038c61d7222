#pragma once

#include "attention/kernels/params.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace annulus::attn::cpu {

/// Hands out aligned float arrays of a thread's share of the workspace. Made without memory it only
/// counts, so that one function both sizes the workspace and carves it.
class Scratch {
 public:
  static constexpr std::int64_t kAlign = 64;  // one cache line

  Scratch() = default;
  explicit Scratch(std::span<std::byte> memory) : base_(memory.data()) {
    const auto misalignment = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(base_) %
                                                        static_cast<std::uintptr_t>(kAlign));
    if (misalignment != 0) base_ += kAlign - misalignment;
  }

  float* floats(std::int64_t n) {
    const std::int64_t at = used_;
    used_ += (n * static_cast<std::int64_t>(sizeof(float)) + kAlign - 1) / kAlign * kAlign;
    return base_ != nullptr ? reinterpret_cast<float*>(base_ + at) : nullptr;
  }

  /// With room to align a base that is not.
  std::int64_t bytes() const { return used_ + kAlign; }

 private:
  std::byte* base_ = nullptr;
  std::int64_t used_ = 0;
};

/// Throws InvalidArgument where the workspace has not `share` bytes for each thread.
inline void check_workspace(const LaunchContext& context, std::size_t share) {
  if (context.threads >= 1 &&
      context.workspace.size() / static_cast<std::size_t>(context.threads) >= share) {
    return;
  }
  throw InvalidArgument(fmt::format("workspace of {} bytes for {} threads of {} each",
                                    context.workspace.size(), context.threads, share));
}

}  // namespace annulus::attn::cpu
