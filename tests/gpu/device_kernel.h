#pragma once

#include "attention/kernels/dispatch.h"

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace annulus::testing {

/// Throws DeviceError.
void check_cuda(cudaError_t status, const char* what);

/// Device memory, filled with NaN or with bytes of the host.
class DeviceBytes {
 public:
  explicit DeviceBytes(std::size_t bytes);
  explicit DeviceBytes(std::span<const std::byte> bytes);
  ~DeviceBytes();
  DeviceBytes(DeviceBytes&& other) noexcept;
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  void read(std::byte* to) const;

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

template <typename T>
DeviceBytes upload(std::span<const T> values) {
  return DeviceBytes(std::as_bytes(values));
}

enum class TileLists { single, joined };  ///< tile_index.h

/// A launch's geometry with its index, in device memory. The host geometry has no index; segments
/// without a flag get one that is raised.
class DeviceGeometry {
 public:
  DeviceGeometry(const attn::AttendGeometry& host, const attn::Kernel& kernel,
                 TileLists lists = TileLists::single);
  const attn::AttendGeometry& geometry() const { return geometry_; }

 private:
  attn::AttendGeometry geometry_;
  std::vector<DeviceBytes> arrays_;
};

/// `kernel`, a CUDA one, as a kernel of host memory: each launch uploads its operands with their
/// gaps, runs on a stream of its own, and downloads what it may have written. Not for two kernels
/// at once: the last one asked for is meant. Segments get flags that are raised already.
const attn::Kernel& on_device(const attn::Kernel& kernel, bool deterministic);

}  // namespace annulus::testing
