#pragma once

#include "runtime/engine/session.h"
#include "tests/engine/device_fill.h"

#include <annulus/annulus.h>
#include <annulus/collective.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

namespace annulus::testing {

/// A caller's arena, as large as a session's own, and 256 bytes behind it that are nobody's.
class CallerArena {
 public:
  /// Collective.
  CallerArena(Mesh& mesh, const SessionOptions& options) {
    const Session own(mesh, options);
    bytes_ = static_cast<std::size_t>(own.arena_bytes());
    barrier(mesh, "the arena's size is known");
    if (own.device() >= 0) {
      device_ = DeviceBytes(static_cast<std::int64_t>(bytes_ + kBehind), own.device());
    } else {
      host_.reset(static_cast<std::byte*>(std::aligned_alloc(256, (bytes_ + 511) / 256 * 256)));
      std::fill_n(host_.get(), bytes_ + kBehind, std::byte{0xff});
    }
  }

  std::span<std::byte> get() const { return {host_ ? host_.get() : device_.data(), bytes_}; }

  void expect_nothing_behind() const {
    std::vector<std::byte> all(bytes_ + kBehind);
    if (host_) {
      std::copy_n(host_.get(), all.size(), all.begin());
    } else {
      device_.download(all);
    }
    EXPECT_TRUE(std::all_of(all.end() - kBehind, all.end(), [](std::byte b) {
      return b == std::byte{0xff};
    })) << "bytes behind a caller's arena were written";
    EXPECT_FALSE(std::all_of(all.begin(), all.end() - kBehind, [](std::byte b) {
      return b == std::byte{0xff};
    })) << "a caller's arena was not used";
  }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  static constexpr std::ptrdiff_t kBehind = 256;
  std::size_t bytes_ = 0;
  std::unique_ptr<std::byte, Free> host_;
  DeviceBytes device_;
};

/// What an earlier use left in the arena must not matter: NaN in all of it.
inline void poison(const Session& session) {
  const std::span<std::byte> arena = session.impl().arena;
  if (arena.empty()) return;
  if (session.device() >= 0) {
    fill_on_device(arena, session.device());
  } else {
    std::ranges::fill(arena, std::byte{0xff});
  }
}

}  // namespace annulus::testing
