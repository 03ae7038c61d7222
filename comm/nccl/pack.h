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
  std::int32_t lanes = 1;  ///< that share a piece: a power of two, at most 32
};

/// Bytes of a run that lanes copy before others may take the next ones: what lies heads first has
/// runs of megabytes, and few of them. A multiple of every width.
inline constexpr std::int64_t kPiece = 4096;

/// Pieces of all runs.
inline std::int64_t pieces_of(const PackJob& job) {
  return job.count[0] * job.count[1] * job.count[2] * ((job.run + kPiece - 1) / kPiece);
}

/// Jobs [first, first + count) of a list in device memory.
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
