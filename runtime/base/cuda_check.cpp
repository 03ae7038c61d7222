#include "runtime/base/cuda_check.h"

#include <annulus/error.h>

#include <cuda.h>
#include <fmt/format.h>

namespace annulus {

void throw_cuda(cudaError_t code, const char* what, const std::source_location& at) {
  (void)cudaGetLastError();
  throw DeviceError(fmt::format("{}: {} ({}) at {}:{}", what, cudaGetErrorString(code),
                                cudaGetErrorName(code), at.file_name(), at.line()));
}

namespace {

/// Whether the device has a primary context.
bool is_used(int device) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t code = cudaGetDriverEntryPointByVersion("cuDevicePrimaryCtxGetState", &function,
                                                            12000, cudaEnableDefault, &found);
  if (code != cudaSuccess || function == nullptr) {
    (void)cudaGetLastError();
    return true;
  }
  unsigned flags = 0;
  int active = 0;
  const auto state = reinterpret_cast<decltype(&cuDevicePrimaryCtxGetState)>(function);
  return state(device, &flags, &active) != CUDA_SUCCESS || active != 0;
}

}  // namespace

DeviceScope::DeviceScope(int device) {
  check_cuda(cudaGetDevice(&before_), "cudaGetDevice");
  if (device == before_) return;
  restores_ = is_used(before_);
  check_cuda(cudaSetDevice(device), "cudaSetDevice");
}

DeviceScope::~DeviceScope() {
  if (restores_) (void)cudaSetDevice(before_);
}

}  // namespace annulus
