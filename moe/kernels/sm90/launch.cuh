#pragma once

#include "moe/kernels/cuda/launch.h"
#include "moe/kernels/sm90/grouped.cuh"
#include "moe/kernels/sm90/maps.h"
#include "runtime/base/cuda_check.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>

// Entry point and launch of one form. Each is compiled by a file of its own.
namespace annulus::moe::sm90 {

template <int kGroups, int kColumns, int kStages, bool kAcross>
__global__ void __launch_bounds__(128 * (kGroups + 1), 1)
    grouped_kernel(const __grid_constant__ Grouped g, const __grid_constant__ Maps maps) {
  extern __shared__ __align__(1024) unsigned char memory[];
  run_block<kGroups, kColumns, kStages, kAcross>(g, maps, memory);
}

template <int kGroups, int kColumns, int kStages>
KernelEntries form_entries() {
  return entries_of(&grouped_kernel<kGroups, kColumns, kStages, false>,
                    &grouped_kernel<kGroups, kColumns, kStages, true>);
}

template <int kGroups, int kColumns, int kStages, bool kAcross>
void launch_form(const GroupedCall& call, int band, cudaStream_t stream) {
  using Memory = Shared<kGroups, kColumns, kStages>;
  static_assert(sizeof(Memory) <= 227 * 1024);
  const Tuning tuning{kGroups, kColumns, kStages};
  Grouped told = call.told;
  told.band = band;
  std::int64_t tiles = 0;
  for (int i = 0; i < told.groups; ++i) {
    tiles += (told.table[i].rows + Memory::kRows - 1) / Memory::kRows;
  }
  tiles *= (told.n + kColumns - 1) / kColumns;
  const Maps maps{encode(call.a, Memory::kRows), encode(call.b, box_rows_of(tuning, kAcross))};
  auto* const kernel = &grouped_kernel<kGroups, kColumns, kStages, kAcross>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(sizeof(Memory))),
             "shared memory of grouped products");
  const auto blocks = static_cast<unsigned>(std::min<std::int64_t>(tiles, multiprocessors()));
  kernel<<<blocks, 128 * (kGroups + 1), sizeof(Memory), stream>>>(told, maps);
  cuda::check_launch("grouped products");
}

}  // namespace annulus::moe::sm90
