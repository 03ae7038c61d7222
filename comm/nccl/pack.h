#pragma once

#include "runtime/base/kernel_entries.h"

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace annulus::comm::nccl {

/// A strided box of runs and the same bytes in one piece.
struct PackJob {
  std::byte* strided = nullptr;
  std::byte* dense = nullptr;
  std::int64_t count[3] = {1, 1, 1};
  std::int64_t stride[3] = {0, 0, 0};  ///< bytes
  std::int64_t run = 0;                ///< bytes
  std::int32_t width = 1;  ///< bytes a lane moves at once: all addresses are multiples of it
  std::int32_t lanes = 1;  ///< that share a run: a power of two, at most 32
};

/// Jobs [first, first + count) of a list in device memory. `rows`: runs of the longest, times
/// lanes.
struct PackLaunch {
  const PackJob* jobs = nullptr;
  std::int32_t count = 0;
  std::int64_t threads = 0;  ///< that the largest job can use
  bool packs = true;         ///< false: from dense to strided
};

/// Enqueues all of them as one kernel; nothing for none. Throws DeviceError.
void launch_pack(const PackLaunch& launch, cudaStream_t stream);

KernelEntries pack_entries();

}  // namespace annulus::comm::nccl
