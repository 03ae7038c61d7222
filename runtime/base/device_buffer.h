#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace annulus {

/// Memory on the current GPU, not initialised. Made and freed by cudaMalloc and cudaFree, which
/// wait for the device: never inside a call.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  /// Throws DeviceError that says how much was asked for and how much is free.
  explicit DeviceBuffer(std::int64_t bytes);
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~DeviceBuffer();

  std::byte* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }

  /// Gives the memory up without freeing it.
  void leak() noexcept { data_ = nullptr; }

  /// Copies host bytes to `offset`; returns when they are there.
  void upload(std::span<const std::byte> bytes, std::int64_t offset) const;

 private:
  std::byte* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

}  // namespace annulus
