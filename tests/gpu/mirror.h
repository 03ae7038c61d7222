#pragma once

#include "runtime/base/cuda_check.h"
#include "runtime/base/device_buffer.h"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

namespace annulus::testing {

/// Host arrays with copies in device memory, for one launch.
class Mirror {
 public:
  /// The copy of `count` elements; null for null.
  template <typename T>
  T* of(T* host, std::int64_t count) {
    if (host == nullptr) return nullptr;
    const auto bytes = static_cast<std::size_t>(count) * sizeof(T);
    const auto* from = reinterpret_cast<const std::byte*>(host);
    auto* data = static_cast<void*>(const_cast<std::remove_const_t<T>*>(host));
    copies_.push_back({std::is_const_v<T> ? nullptr : data, bytes,
                       DeviceBuffer(static_cast<std::int64_t>(bytes > 0 ? bytes : 1))});
    copies_.back().device.upload({from, bytes}, 0);
    return reinterpret_cast<T*>(copies_.back().device.data());
  }

  /// Waits for the device, then copies what is not const back.
  void download() const {
    check_cuda(cudaDeviceSynchronize(), "kernels of a test");
    for (const Copy& copy : copies_) {
      if (copy.host == nullptr || copy.bytes == 0) continue;
      check_cuda(cudaMemcpy(copy.host, copy.device.data(), copy.bytes, cudaMemcpyDeviceToHost),
                 "download");
    }
  }

 private:
  struct Copy {
    void* host = nullptr;  ///< null: not to be downloaded
    std::size_t bytes = 0;
    DeviceBuffer device;
  };
  std::deque<Copy> copies_;
};

}  // namespace annulus::testing
