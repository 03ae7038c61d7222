#include "moe/kernels/cuda/launch.h"

#include <annulus/error.h>

#include <cuda_runtime_api.h>
#include <fmt/format.h>

namespace annulus::moe::cuda {

void check_launch(const char* kernel) {
  const cudaError_t code = cudaGetLastError();
  if (code == cudaSuccess) return;
  throw DeviceError(fmt::format("launch of {}: {}", kernel, cudaGetErrorString(code)));
}

}  // namespace annulus::moe::cuda
