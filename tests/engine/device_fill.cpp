#include "tests/engine/device_fill.h"

#include "runtime/base/cuda_check.h"
#include "runtime/base/cuda_handles.h"

#include <cuda_runtime_api.h>

namespace annulus::testing {

void fill_on_device(std::span<std::byte> memory, int device) {
  const DeviceScope scope(device);
  check_cuda(cudaMemset(memory.data(), 0xff, memory.size()), "cudaMemset of an arena");
  check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

}  // namespace annulus::testing
