#pragma once

#include "attention/kernels/cuda/launch.h"
#include "attention/kernels/sm90/forward.cuh"
#include "attention/kernels/sm90/variant.h"

// Entry point and launch of one variant.
namespace annulus::attn::sm90 {

template <typename T, int kDim, Tuning kTuning, bool kCapped>
__global__ void __launch_bounds__(threads_of(kTuning), 1)
    hopper_forward_kernel(const __grid_constant__ cuda::Geometry g,
                          const __grid_constant__ ForwardParams p,
                          const __grid_constant__ Maps maps,
                          const __grid_constant__ Schedule schedule) {
  extern __shared__ __align__(1024) unsigned char memory[];
  run_block<T, kDim, kTuning, kCapped>(g, p, maps, schedule, memory);
}

template <typename T, int kDim, Tuning kTuning, bool kCapped>
void launch_tuned(const Launch& launch) {
  constexpr int kBytes = sizeof(Shared<kDim, kTuning>);
  void (*const kernel)(cuda::Geometry, ForwardParams, Maps, Schedule) =
      &hopper_forward_kernel<T, kDim, kTuning, kCapped>;
  cuda::allow_shared_memory(reinterpret_cast<const void*>(kernel), kBytes);
  kernel<<<static_cast<unsigned>(launch.blocks), threads_of(kTuning), kBytes,
           static_cast<cudaStream_t>(launch.stream)>>>(launch.geometry, launch.params, launch.maps,
                                                       launch.schedule);
  cuda::check_launch("hopper forward");
}

template <typename T, int kDim>
void launch_hopper_forward(const Launch& launch) {
  constexpr Tuning kTuning = default_tuning(kDim);
  if (launch.geometry.softcap != 0.0) {
    launch_tuned<T, kDim, kTuning, true>(launch);
  } else {
    launch_tuned<T, kDim, kTuning, false>(launch);
  }
}

}  // namespace annulus::attn::sm90
