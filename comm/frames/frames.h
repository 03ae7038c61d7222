#pragma once

#include "runtime/base/clock.h"

#include <cstddef>
#include <functional>
#include <span>
#include <string_view>

namespace annulus::comm::frames {

/// Bytes that every rank brings to a gather, no more and no less: a gather of a library that wants
/// the same count everywhere can neither hang nor overrun where ranks disagree on sizes.
constexpr std::size_t kFrameBytes = 4096;

/// Gathers frames between ranks, the n-th call of each with the n-th of all others.
class Frames {
 public:
  virtual ~Frames() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// `mine` has kFrameBytes, `all` size() times as many, in rank order. `check` is called now and
  /// then while it waits, and may throw. Throws Timeout; after any exception only abandon() helps.
  virtual void gather(std::span<const std::byte> mine, std::span<std::byte> all,
                      std::string_view what, const Deadline& deadline,
                      const std::function<void()>& check) = 0;

  /// Gives up what is under way, without waiting for others. No gather follows.
  virtual void abandon() noexcept = 0;
};

}  // namespace annulus::comm::frames
