#include "runtime/base/device_buffer.h"

#include "runtime/base/cuda_check.h"

#include <annulus/error.h>

#include <fmt/format.h>

namespace annulus {

DeviceBuffer::DeviceBuffer(std::int64_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  void* data = nullptr;
  const cudaError_t code = cudaMalloc(&data, static_cast<std::size_t>(bytes));
  if (code != cudaSuccess) {
    (void)cudaGetLastError();
    std::size_t free = 0;
    std::size_t total = 0;
    (void)cudaMemGetInfo(&free, &total);
    throw DeviceError(fmt::format("cudaMalloc of {} bytes: {}; {} of {} bytes are free", bytes,
                                  cudaGetErrorString(code), free, total));
  }
  data_ = static_cast<std::byte*>(data);
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) (void)cudaFree(data_);
}

void DeviceBuffer::upload(std::span<const std::byte> bytes, std::int64_t offset) const {
  if (bytes.empty()) return;
  check_cuda(cudaMemcpy(data_ + offset, bytes.data(), bytes.size(), cudaMemcpyHostToDevice),
             "cudaMemcpy to the device");
  // From pageable memory the copy returns when the bytes are staged.
  check_cuda(cudaStreamSynchronize(nullptr), "cudaMemcpy to the device");
}

}  // namespace annulus
