#include "tests/moe/kernels/device.h"

#include "runtime/base/cuda_check.h"
#include "runtime/base/device_buffer.h"

#include <algorithm>

namespace annulus::testing {

namespace {

std::shared_ptr<void> allocate(std::int64_t bytes) {
  const auto buffer = std::make_shared<DeviceBuffer>(bytes);
  check_cuda(cudaMemset(buffer->data(), 0xff, static_cast<std::size_t>(bytes)), "cudaMemset");
  return {buffer, buffer->data()};
}

}  // namespace

moe::Device test_device() {
  moe::Device device = moe::gpu_device(nullptr);
  device.allocate = allocate;
  return device;
}

void use_device(int rank, int ranks) {
  int count = 0;
  check_cuda(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  check_cuda(cudaSetDevice(rank % count), "cudaSetDevice");
  for (int other = 0; other < std::min(ranks, count); ++other) {
    if (other == rank % count) continue;
    const cudaError_t code = cudaDeviceEnablePeerAccess(other, 0);
    (void)cudaGetLastError();
    if (code != cudaErrorPeerAccessAlreadyEnabled) check_cuda(code, "cudaDeviceEnablePeerAccess");
  }
}

void write(void* device, const void* host, std::int64_t bytes) {
  check_cuda(cudaMemcpy(device, host, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice),
             "upload");
}

}  // namespace annulus::testing
