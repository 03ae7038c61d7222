#pragma once

#include "attention/kernels/cuda/launch.h"
#include "attention/kernels/sm90/block.cuh"
#include "attention/kernels/sm90/variant.h"

// Entry point and launch of one variant.
namespace annulus::attn::sm90 {

/// The tuning that is launched, as a type: nvcc (13.0) cannot name kernels of a struct's value.
template <int kDim, int kDimV, bool kCapped, std::int64_t kKeys = 0>
struct Launched {
  static constexpr Tuning kTuning = default_tuning(kDim, kDimV, kCapped, kKeys);
};

template <typename T, int kDim, int kDimV, typename Tuned, bool kCapped>
__global__ void __launch_bounds__(threads_of(Tuned::kTuning), 1)
    hopper_forward_kernel(const __grid_constant__ cuda::Geometry g,
                          const __grid_constant__ ForwardParams p,
                          const __grid_constant__ Maps maps,
                          const __grid_constant__ Schedule schedule) {
  extern __shared__ __align__(1024) unsigned char memory[];
  run_block<T, kDim, kDimV, Tuned::kTuning, kCapped>(g, p, maps, schedule, memory);
}

template <typename T, int kDim, int kDimV, typename Tuned, bool kCapped>
void launch_tuned(const Launch& launch) {
  constexpr int kBytes = sizeof(Shared<kDim, kDimV, Tuned::kTuning>);
  static_assert(sizeof(cuda::Geometry) + sizeof(ForwardParams) + sizeof(Maps) + sizeof(Schedule) <=
                kMostParameterBytes);
  void (*const kernel)(cuda::Geometry, ForwardParams, Maps, Schedule) =
      &hopper_forward_kernel<T, kDim, kDimV, Tuned, kCapped>;
  cuda::allow_shared_memory(reinterpret_cast<const void*>(kernel), kBytes);
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = static_cast<unsigned>(launch.blocks);
  config.blockDim = static_cast<unsigned>(threads_of(Tuned::kTuning));
  config.dynamicSmemBytes = kBytes;
  config.stream = static_cast<cudaStream_t>(launch.stream);
  config.attrs = &overlap;
  config.numAttrs = launch.overlapped ? 1U : 0U;
  (void)cudaLaunchKernelEx(&config, kernel, launch.geometry, launch.params, launch.maps,
                           launch.schedule);
  cuda::check_launch("hopper forward");
}

template <typename T, int kDim, int kDimV>
KernelEntries hopper_forward_entries() {
  KernelEntries all =
      entries_of(&hopper_forward_kernel<T, kDim, kDimV, Launched<kDim, kDimV, true>, true>,
                 &hopper_forward_kernel<T, kDim, kDimV, Launched<kDim, kDimV, false>, false>);
  if constexpr (has_short_steps(kDim, false, kShortKeys)) {
    using Short = Launched<kDim, kDimV, false, kShortKeys>;
    return all + entries_of(&hopper_forward_kernel<T, kDim, kDimV, Short, false>);
  }
  return all;
}

template <typename T, int kDim, int kDimV>
void launch_hopper_forward(const Launch& launch) {
  if (launch.geometry.softcap != 0.0) {
    launch_tuned<T, kDim, kDimV, Launched<kDim, kDimV, true>, true>(launch);
    return;
  }
  if constexpr (has_short_steps(kDim, false, kShortKeys)) {
    if (has_short_steps(kDim, false, launch.keys)) {
      launch_tuned<T, kDim, kDimV, Launched<kDim, kDimV, false, kShortKeys>, false>(launch);
      return;
    }
  }
  launch_tuned<T, kDim, kDimV, Launched<kDim, kDimV, false>, false>(launch);
}

}  // namespace annulus::attn::sm90
