#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace annulus::testing {

/// What a GPU brings to an exchange by NCCL.
struct NcclSource {
  int device = 0;
  cudaStream_t stream = nullptr;
  std::byte* x = nullptr;  ///< [kTokens][row_bytes]; the first 8 bytes of each row are overwritten
  const std::vector<std::int32_t>* experts = nullptr;  ///< [kTokens][k], of the host
};

struct NcclTimes {
  double exchange_us = 0;  ///< of a call, of the slowest GPU
  double permute_us = 0;
};

/// The all-to-all-v that dispatch is measured against: a kernel packs a row for each pair, in the
/// order of experts, and one group of ncclSend and ncclRecv on each GPU takes those of each rank's
/// experts to it, its own too. One communicator and one thread a GPU; all rows that come are
/// checked in memory that was poisoned. Throws Unsupported where NCCL does not open, DeviceError
/// where a row is wrong.
NcclTimes time_nccl(const std::vector<NcclSource>& sources, std::int32_t experts, std::int64_t k,
                    std::int64_t row_bytes);

}  // namespace annulus::testing
