#pragma once

#include "attention/execute/cuda/row_kernels.h"
#include "attention/execute/memory.h"

#include <annulus/plan.h>

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace annulus::attn {

/// The items that are neither transfers nor attends, enqueued on a stream. `early`:
/// launch_convert's.
void enqueue_prepare(const Prepare& prepare, const Memory& memory, cudaStream_t stream,
                     bool early = false);
/// Several copies or conversions in one launch (joined_prepares.h). `begin`: the
/// launch also begins a call of `pass`; null: it does not.
void enqueue_prepares(std::span<const Prepare* const> prepares, const Memory& memory,
                      const CallWords* begin, std::uint32_t pass, cudaStream_t stream, bool early);
void enqueue_reduce(const Reduce& reduce, const Memory& memory, cudaStream_t stream);
void enqueue_merge(const Merge& merge, const Memory& memory, cudaStream_t stream);

/// What a DevicePool uploads with: bytes, a multiple of 256, from pinned host memory.
void enqueue_upload(std::byte* to, std::byte* from, std::int64_t bytes, cudaStream_t stream);

}  // namespace annulus::attn
