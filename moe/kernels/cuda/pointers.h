#pragma once

#include "runtime/base/kernel_entries.h"

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
KernelEntries pointer_entries();

}  // namespace annulus::moe::cuda
