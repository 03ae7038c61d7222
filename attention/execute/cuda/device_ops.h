#pragma once

#include "attention/execute/memory.h"

#include <annulus/plan.h>

#include <cuda_runtime_api.h>

namespace annulus::attn {

/// The items that are neither transfers nor attends, enqueued on a stream. `early`:
/// launch_convert's.
void enqueue_prepare(const Prepare& prepare, const Memory& memory, cudaStream_t stream,
                     bool early = false);
void enqueue_reduce(const Reduce& reduce, const Memory& memory, cudaStream_t stream);
void enqueue_merge(const Merge& merge, const Memory& memory, cudaStream_t stream);

}  // namespace annulus::attn
