#pragma once

#include "attention/kernels/cuda/launch.h"
#include "attention/kernels/sm90/backward.cuh"
#include "attention/kernels/sm90/overlap.h"
#include "attention/kernels/sm90/variant.h"

// Entry point and launch of one variant of the backward.
namespace annulus::attn::sm90 {

/// What a block shares with the tuning that is launched.
template <int kDim, int kDimV>
using BackwardLaunched = BackwardShared<kDim, kDimV, default_backward_tuning(kDim, kDimV)>;

template <typename T, typename Memory, bool kCapped, bool kOrdered>
__global__ void __launch_bounds__(Memory::kThreads, 1)
    hopper_backward_kernel(const __grid_constant__ cuda::Geometry g,
                           const __grid_constant__ BackwardParams p,
                           const __grid_constant__ BackwardMaps maps,
                           const __grid_constant__ KeySchedule schedule,
                           const __grid_constant__ Factors factors, int* const turns) {
  extern __shared__ __align__(1024) unsigned char memory[];
  run_backward_block<T, Memory, kCapped, kOrdered>(g, p, maps, schedule, factors, turns, memory);
}

using BackwardKernel = void (*)(cuda::Geometry, BackwardParams, BackwardMaps, KeySchedule, Factors,
                                int*);

template <typename Memory>
void launch_kernel(const BackwardLaunch& launch, BackwardKernel kernel) {
  constexpr int kBytes = sizeof(Memory);
  static_assert(kBytes <= 227 * 1024);
  static_assert(sizeof(cuda::Geometry) + sizeof(BackwardParams) + sizeof(BackwardMaps) +
                    sizeof(KeySchedule) + sizeof(Factors) + sizeof(int*) + 8 <=
                kMostParameterBytes);
  cuda::allow_shared_memory(reinterpret_cast<const void*>(kernel), kBytes);
  // Behind prepare_backward, whose work the loader waits for.
  const Overlapped overlapped(static_cast<unsigned>(launch.blocks), Memory::kThreads, kBytes,
                              launch.stream, true);
  (void)cudaLaunchKernelEx(overlapped.config(), kernel, launch.geometry, launch.params, launch.maps,
                           launch.schedule, factors_of(launch.geometry), launch.turns);
  cuda::check_launch("hopper backward");
}

template <typename T, int kDim, int kDimV>
KernelEntries hopper_backward_entries() {
  using Memory = BackwardLaunched<kDim, kDimV>;
  return entries_of(&hopper_backward_kernel<T, Memory, false, false>,
                    &hopper_backward_kernel<T, Memory, false, true>,
                    &hopper_backward_kernel<T, Memory, true, false>,
                    &hopper_backward_kernel<T, Memory, true, true>);
}

template <typename T, int kDim, int kDimV>
void launch_hopper_backward(const BackwardLaunch& launch) {
  using Memory = BackwardLaunched<kDim, kDimV>;
  constexpr BackwardKernel kKernels[2][2] = {{&hopper_backward_kernel<T, Memory, false, false>,
                                              &hopper_backward_kernel<T, Memory, false, true>},
                                             {&hopper_backward_kernel<T, Memory, true, false>,
                                              &hopper_backward_kernel<T, Memory, true, true>}};
  launch_kernel<Memory>(launch, kKernels[launch.geometry.softcap != 0.0][launch.turns != nullptr]);
}

}  // namespace annulus::attn::sm90
