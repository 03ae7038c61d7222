#pragma once

#include <cuda_runtime_api.h>

namespace annulus::moe::cuda {

/// As many as kernel parameters hold.
struct PointerBatch {
  static constexpr int kMost = 384;
  const void* values[kMost] = {};
  int count = 0;
};

/// Writes the batch to device memory. Unlike a copy from the host, a graph may hold it, and nobody
/// waits.
void write_pointers(const void** to, const PointerBatch& batch, cudaStream_t stream);

}  // namespace annulus::moe::cuda
