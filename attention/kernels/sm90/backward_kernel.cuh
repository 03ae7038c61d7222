#pragma once

#include "attention/kernels/cuda/launch.h"
#include "attention/kernels/sm90/backward.cuh"
#include "attention/kernels/sm90/variant.h"

// Entry point and launch of one variant of the backward.
namespace annulus::attn::sm90 {

template <typename T, int kDim, bool kCapped, bool kOrdered>
__global__ void __launch_bounds__(kThreads, 1)
    hopper_backward_kernel(const __grid_constant__ cuda::Geometry g,
                           const __grid_constant__ BackwardParams p,
                           const __grid_constant__ BackwardMaps maps,
                           const __grid_constant__ KeySchedule schedule, int* const turns) {
  extern __shared__ __align__(1024) unsigned char memory[];
  run_backward_block<T, kDim, kCapped, kOrdered>(g, p, maps, schedule, turns, memory);
}

template <typename T, int kDim>
void launch_hopper_backward(const BackwardLaunch& launch) {
  constexpr int kBytes = sizeof(BackwardShared<kDim>);
  static_assert(kBytes <= 227 * 1024);
  using Kernel = void (*)(cuda::Geometry, BackwardParams, BackwardMaps, KeySchedule, int*);
  constexpr Kernel kKernels[2][2] = {{&hopper_backward_kernel<T, kDim, false, false>,
                                      &hopper_backward_kernel<T, kDim, false, true>},
                                     {&hopper_backward_kernel<T, kDim, true, false>,
                                      &hopper_backward_kernel<T, kDim, true, true>}};
  const Kernel kernel = kKernels[launch.geometry.softcap != 0.0][launch.turns != nullptr];
  cuda::allow_shared_memory(reinterpret_cast<const void*>(kernel), kBytes);
  kernel<<<static_cast<unsigned>(launch.blocks), kThreads, kBytes,
           static_cast<cudaStream_t>(launch.stream)>>>(launch.geometry, launch.params, launch.maps,
                                                       launch.schedule, launch.turns);
  cuda::check_launch("hopper backward");
}

}  // namespace annulus::attn::sm90
