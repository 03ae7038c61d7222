#pragma once

#include "moe/device.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace annulus::moe {

/// Memory of a device, freed with this.
class DeviceRoom {
 public:
  template <typename T = std::byte>
  T* take(const Device& device, std::int64_t count) {
    const auto bytes = count * static_cast<std::int64_t>(sizeof(T));
    memory_.push_back(device.allocate(bytes > 0 ? bytes : 1));
    bytes_ += bytes;
    return static_cast<T*>(memory_.back().get());
  }
  std::int64_t bytes() const { return bytes_; }

 private:
  std::vector<std::shared_ptr<void>> memory_;
  std::int64_t bytes_ = 0;
};

}  // namespace annulus::moe
