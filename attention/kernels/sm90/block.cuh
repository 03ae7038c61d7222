#pragma once

#include "attention/kernels/sm90/forward.cuh"
#include "attention/kernels/sm90/loader.cuh"
#include "attention/kernels/sm90/porter.cuh"

namespace annulus::attn::sm90 {

/// All of a block; `memory`: sizeof(Shared<kDim, kDimV, kTuning>), 1024-byte aligned.
template <typename T, int kDim, int kDimV, Tuning kTuning, bool kCapped>
__device__ __forceinline__ void run_block(const cuda::Geometry& g, const ForwardParams& p,
                                          const Maps& maps, const Schedule& schedule,
                                          unsigned char* memory) {
  auto& shared = *reinterpret_cast<Shared<kDim, kDimV, kTuning>*>(memory);
  if (threadIdx.x == 0) init_barriers(shared);
  __syncthreads();
  // Each role gives registers back for itself: behind one for both, ptxas spills the loader's.
  if (threadIdx.x < 32) {
    give_registers<kTuning.loader_registers>();
    if (threadIdx.x == 0) Loader<kDim, kDimV, kTuning>(g, maps, schedule, shared).run();
  } else if (threadIdx.x < kGroupThreads) {
    give_registers<kTuning.loader_registers>();
    Porter<kDim, kDimV, kTuning>(g, p, shared).run();
  } else {
    take_registers<kTuning.consumer_registers>();
    Consumer<T, kDim, kDimV, kTuning, kCapped>(g, p, shared).run();
    if (kTuning.traced && blockIdx.x == 0 && threadIdx.x == kGroupThreads) {
      write_trace(shared.trace, g.flops);
    }
  }
}

}  // namespace annulus::attn::sm90
