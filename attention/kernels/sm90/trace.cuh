#pragma once

#include "attention/kernels/sm90/ptx.cuh"

#include <cstdint>

// Where time goes: clocks of one thread of block 0, from each point that it passes to the next. For
// tests alone: it costs a branch a point.
namespace annulus::attn::sm90 {

template <int kPhases>
struct Trace {
  std::uint32_t clocks[kPhases];
  std::uint32_t counts[kPhases];  ///< how often the phase ended
  std::uint32_t last;
};

template <bool kTraced, int kPhases, typename Phase>
__device__ __forceinline__ void mark(Trace<kPhases>& trace, int thread, Phase phase) {
  if constexpr (kTraced) {
    if (thread != 0) return;
    const std::uint32_t now = clock_now();
    trace.clocks[static_cast<int>(phase)] += now - trace.last;
    ++trace.counts[static_cast<int>(phase)];
    trace.last = now;
  }
}

/// To what follows the counter of FLOP, of which there must then be 1 + 2 kPhases.
template <int kPhases>
__device__ __forceinline__ void write_trace(const Trace<kPhases>& trace,
                                            unsigned long long* flops) {
  if (flops == nullptr) return;
#pragma unroll 1
  for (int i = 0; i < kPhases; ++i) {
    flops[1 + 2 * i] = trace.clocks[i];
    flops[2 + 2 * i] = trace.counts[i];
  }
}

}  // namespace annulus::attn::sm90
