#pragma once

#include "runtime/base/buffer.h"

#include <cstddef>
#include <span>
#include <utility>

namespace annulus::comm {

/// Memory of one rank for what transfers move: where a transport can, it is laid so that other
/// ranks reach it. Not initialised. Outlived by the communicator that made it.
class Arena {
 public:
  virtual ~Arena() = default;
  virtual std::span<std::byte> bytes() const = 0;
};

/// Memory of this process alone.
class PrivateArena final : public Arena {
 public:
  explicit PrivateArena(std::int64_t bytes) : buffer_(bytes) {}
  std::span<std::byte> bytes() const override {
    return {buffer_.data(), static_cast<std::size_t>(buffer_.bytes())};
  }

 private:
  Buffer buffer_;
};

}  // namespace annulus::comm
