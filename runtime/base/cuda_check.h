#pragma once

#include <cuda_runtime_api.h>

#include <source_location>
#include <string>

namespace annulus {

/// Throws DeviceError with the call's place and CUDA's words, and clears the error.
void throw_cuda(cudaError_t code, const char* what,
                const std::source_location& at = std::source_location::current());

/// `check_cuda(cudaMalloc(...), "cudaMalloc of the arena")`.
inline void check_cuda(cudaError_t code, const char* what,
                       const std::source_location& at = std::source_location::current()) {
  if (code != cudaSuccess) throw_cuda(code, what, at);
}

/// Makes a device current and restores the caller's, unless that one was never used: cudaSetDevice
/// would make a context there, half a gigabyte of memory.
class DeviceScope {
 public:
  explicit DeviceScope(int device);
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;
  ~DeviceScope();

 private:
  int before_ = 0;
  bool restores_ = false;
};

}  // namespace annulus
