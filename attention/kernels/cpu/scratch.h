#pragma once

#include "attention/kernels/params.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
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

/// The workspace of a launch: floats that all threads share, then a share for each thread.
class Workspace {
 public:
  /// Throws InvalidArgument where it is too small.
  Workspace(const LaunchContext& context, std::int64_t shared_floats, std::int64_t share_bytes)
      : share_(static_cast<std::size_t>(share_bytes)) {
    const auto shared = static_cast<std::size_t>(bytes(shared_floats, 0, 1));
    const auto needed =
        static_cast<std::size_t>(bytes(shared_floats, share_bytes, context.threads));
    if (context.threads < 1 || context.workspace.size() < needed) {
      throw InvalidArgument(fmt::format("workspace of {} bytes for {} threads: {} needed",
                                        context.workspace.size(), context.threads, needed));
    }
    shared_ = Scratch(context.workspace.first(shared)).floats(shared_floats);
    shares_ = context.workspace.subspan(shared);
  }

  float* shared() const { return shared_; }
  Scratch share(int thread) const {
    return Scratch(shares_.subspan(static_cast<std::size_t>(thread) * share_, share_));
  }

  static std::int64_t bytes(std::int64_t shared_floats, std::int64_t share_bytes, int threads) {
    Scratch counted;
    counted.floats(shared_floats);
    return (shared_floats > 0 ? counted.bytes() : 0) + share_bytes * std::max(threads, 1);
  }

 private:
  std::size_t share_;
  float* shared_ = nullptr;
  std::span<std::byte> shares_;
};

}  // namespace annulus::attn::cpu
