#include "moe/kernels/cuda/pointers.h"

#include "moe/kernels/cuda/launch.h"

#include <cuda_runtime.h>

namespace annulus::moe::cuda {

namespace {

__global__ void pointers_kernel(const void** to, const __grid_constant__ PointerBatch batch) {
  const auto i = static_cast<int>(threadIdx.x);
  if (i < batch.count) to[i] = batch.values[i];
}

}  // namespace

KernelEntries pointer_entries() { return entries_of(&pointers_kernel); }

void write_pointers(const void** to, const PointerBatch& batch, cudaStream_t stream) {
  pointers_kernel<<<1, PointerBatch::kMost, 0, stream>>>(to, batch);
  check_launch("write_pointers");
}

}  // namespace annulus::moe::cuda
