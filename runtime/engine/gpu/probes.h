#pragma once

#include <annulus/gpu.h>

#include <vector>

namespace annulus::engine {

// Each takes the memory it needs and gives it back, waits at most `timeout_s` at a time, and throws
// DeviceError or Timeout.

/// One way from `from` to `to`, by either GPU's copy engines.
GpuLink measure_link(int to, int from, double timeout_s);

/// Fills in the rates through NCCL, one message at a time. Takes a second to set NCCL up. Also
/// throws Unsupported and CommError.
void measure_nccl(GpuLink& link, double timeout_s);

/// Copies queued behind a gate on a stream of `to`. The same GPU: local copies.
std::vector<CopySample> measure_queued_copies(int to, int from, double timeout_s);

/// On GPU 0; the peer copy pulls from GPU `peer`, -1: there is none.
std::vector<BesideFullKernel> try_beside_full_kernel(int peer, double timeout_s);

QueueLimits measure_queues(double timeout_s);

}  // namespace annulus::engine
