#pragma once

#include "attention/kernels/sm90/backward_phases.h"
#include "attention/kernels/sm90/ptx.cuh"

#include <cstdint>

// Where the time of a step goes: clocks of one thread of block 0, from each point that it passes to
// the next. For tests alone: it costs a branch a point.
namespace annulus::attn::sm90 {

struct Trace {
  std::uint32_t clocks[kPhases];
  std::uint32_t last;
  std::uint32_t steps;
};

template <bool kTraced>
__device__ __forceinline__ void mark(Trace& trace, int thread, Phase phase) {
  if constexpr (kTraced) {
    if (thread != 0) return;
    const std::uint32_t now = clock_now();
    trace.clocks[static_cast<int>(phase)] += now - trace.last;
    trace.last = now;
    if (phase == Phase::scores) ++trace.steps;
  }
}

/// To what follows the counter of FLOP, of which there must then be 2 + kPhases.
__device__ __forceinline__ void write_trace(const Trace& trace, unsigned long long* flops) {
  if (flops == nullptr) return;
  flops[1] = trace.steps;
#pragma unroll 1
  for (int i = 0; i < kPhases; ++i) flops[2 + i] = trace.clocks[i];
}

}  // namespace annulus::attn::sm90
