// Before the kernel: the schedule, by as many warps as there are query tiles.
#include "attention/kernels/cuda/device/unvisited.cuh"
#include "attention/kernels/cuda/launch.h"
#include "attention/kernels/sm90/pack.cuh"
#include "attention/kernels/sm90/ptx.cuh"
#include "attention/kernels/sm90/schedule.cuh"
#include "attention/kernels/sm90/tuning.h"
#include "attention/kernels/sm90/variant.h"

namespace annulus::attn::sm90 {

namespace {

constexpr int kWarps = 4;

/// Of the whole grid, whose blocks have the same number of threads.
struct GridThread {
  std::int64_t index, count;
  __device__ GridThread() {
    const std::int64_t threads = blockDim.x * blockDim.y;
    const std::int64_t block =
        (static_cast<std::int64_t>(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    index = block * threads + threadIdx.y * blockDim.x + threadIdx.x;
    count = threads * gridDim.x * gridDim.y * gridDim.z;
  }
};

template <bool kSplit>
__global__ void place_query_tiles(const __grid_constant__ cuda::Geometry g, const Input q,
                                  const __grid_constant__ Schedule schedule,
                                  const __grid_constant__ Parts split, int step_keys) {
  const int i = static_cast<int>(blockIdx.x * kWarps + threadIdx.y);
  if constexpr (kSplit) {
    const GridThread thread;
    pack_heads(g, q, split, thread.index, thread.count);
  }
  if (i == 0 && threadIdx.x == 0) *schedule.drawn = 0;
  if (i >= g.row_tile_count) return;
  place_query_tile<kSplit>(g, schedule, split, i, static_cast<int>(threadIdx.x), step_keys);
}

/// fill_rows (fill.cu), of which the warps of one head and batch also place a query tile each.
template <bool kSplit>
__global__ void fill_and_place(const __grid_constant__ cuda::Geometry g,
                               const __grid_constant__ ForwardParams p,
                               const __grid_constant__ Schedule schedule,
                               const __grid_constant__ Parts split, int step_keys, int parts,
                               bool zero) {
  let_next_kernel_start();
  if constexpr (kSplit) {
    const GridThread thread;
    pack_heads(g, p.q, split, thread.index, thread.count);
  }
  const int block = static_cast<int>(blockIdx.x) / parts;
  const int part = static_cast<int>(blockIdx.x) % parts;
  const int i = block * cuda::kGapWarps + static_cast<int>(threadIdx.y);
  if (part == 0 && blockIdx.y == 0 && blockIdx.z == 0) {
    if (i == 0 && threadIdx.x == 0) {
      *schedule.drawn = 0;
      if (zero && g.flops != nullptr) *g.flops = 0;
    }
    if (i < g.row_tile_count) {
      place_query_tile<kSplit>(g, schedule, split, i, static_cast<int>(threadIdx.x), step_keys);
    }
  }
  cuda::fill_gaps(g, p, block, part, parts);
}

unsigned blocks_for(int tiles) { return static_cast<unsigned>((tiles + kWarps - 1) / kWarps); }

}  // namespace

KernelEntries prepare_entries() {
  return entries_of(&fill_and_place<false>, &fill_and_place<true>, &place_query_tiles<false>,
                    &place_query_tiles<true>);
}

void prepare(const cuda::Geometry& g, const ForwardParams& params, const Schedule& schedule,
             const Parts& split, int step_keys, bool zero, void* stream) {
  const int parts = cuda::gap_parts(g, kMostTileRows);
  // Blocks of the forward come when these have left their multiprocessors: no more than are needed.
  const bool gaps = params.geometry.covered_rows != g.rows || split.group > 1;
  const dim3 grid(cuda::gap_blocks(g, parts), gaps ? static_cast<unsigned>(g.heads) : 1U,
                  gaps ? static_cast<unsigned>(g.batch) : 1U);
  auto* const kernel = split.tiles == nullptr ? &fill_and_place<false> : &fill_and_place<true>;
  kernel<<<grid, dim3(32, cuda::kGapWarps), 0, static_cast<cudaStream_t>(stream)>>>(
      g, params, schedule, split, step_keys, parts, zero);
  cuda::check_launch("hopper prepare");
}

void make_schedule(const cuda::Geometry& g, const Input& q, const Schedule& schedule,
                   const Parts& split, int step_keys, void* stream) {
  auto* const kernel =
      split.tiles == nullptr ? &place_query_tiles<false> : &place_query_tiles<true>;
  kernel<<<blocks_for(g.row_tile_count), dim3(32, kWarps), 0, static_cast<cudaStream_t>(stream)>>>(
      g, q, schedule, split, step_keys);
  cuda::check_launch("hopper schedule");
}

}  // namespace annulus::attn::sm90
