// After the blocks of a split launch: the states of its parts become the launch's result.
#include "attention/kernels/cuda/launch.h"
#include "attention/kernels/sm90/merge.cuh"
#include "attention/kernels/sm90/variant.h"

namespace annulus::attn::sm90 {

namespace {

constexpr int kWarps = 4;

/// Block x: rows of one query tile, a warp each.
__global__ void merge_rows(const __grid_constant__ cuda::Geometry g,
                           const __grid_constant__ ForwardParams p,
                           const __grid_constant__ Parts split, int blocks_of_tile) {
  await_kernel_before();
  const auto x = static_cast<int>(blockIdx.x);
  const int row = x % blocks_of_tile * kWarps + static_cast<int>(threadIdx.y);
  merge_row(g, p, split, x / blocks_of_tile, row, static_cast<int>(blockIdx.y),
            static_cast<int>(blockIdx.z), static_cast<int>(threadIdx.x));
}

}  // namespace

KernelEntries merge_entries() { return entries_of(&merge_rows); }

void merge_parts(const cuda::Geometry& g, const ForwardParams& params, const Parts& split,
                 bool overlapped, void* stream) {
  const int blocks = (split.tile_rows + kWarps - 1) / kWarps;
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim =
      dim3(static_cast<unsigned>(g.row_tile_count * blocks),
           static_cast<unsigned>(g.heads / split.group), static_cast<unsigned>(g.batch));
  config.blockDim = dim3(32, kWarps);
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &overlap;
  config.numAttrs = overlapped ? 1U : 0U;
  (void)cudaLaunchKernelEx(&config, &merge_rows, g, params, split, blocks);
  cuda::check_launch("hopper merge");
}

}  // namespace annulus::attn::sm90
