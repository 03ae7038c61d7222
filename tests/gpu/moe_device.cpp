#include "tests/moe/kernels/device.h"

#include "runtime/base/cuda_check.h"
#include "runtime/base/device_buffer.h"

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

void write(void* device, const void* host, std::int64_t bytes) {
  check_cuda(cudaMemcpy(device, host, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice),
             "upload");
}

}  // namespace annulus::testing
