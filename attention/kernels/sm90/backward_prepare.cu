// Before the backward's kernel, in one launch: the schedule, and zeroes in dQ, in the counters, and
// in dK and dV of keys that no tile names.
#include "attention/kernels/cuda/device/clear.cuh"
#include "attention/kernels/cuda/launch.h"
#include "attention/kernels/sm90/overlap.h"
#include "attention/kernels/sm90/ptx.cuh"
#include "attention/kernels/sm90/schedule.cuh"
#include "attention/kernels/sm90/setup.h"
#include "attention/kernels/sm90/variant.h"

#include <algorithm>

namespace annulus::attn::sm90 {

namespace {

constexpr int kWarps = cuda::kClearRows;
constexpr int kRowsOfBlock = 4 * kWarps;

/// Who does what: blocks along x, of every head and batch.
struct Work {
  int schedule;   ///< blocks that place key tiles
  int gaps;       ///< those that look for gaps between them
  int gap_parts;  ///< of those, how many share the same gaps; the others clear dQ
  bool wide_dq, wide_dk, wide_dv;
  bool ordered;
  bool zero_flops;
  std::int64_t turns;
};

/// One block: kWarps gaps, a part of whose keys all its warps clear.
__device__ void clear_key_gaps(const cuda::Geometry& g, const BackwardParams& p, const Work& work,
                               int x) {
  __shared__ cuda::KeyGap gaps[kWarps];
  const auto warp = static_cast<int>(threadIdx.y);
  const int part = x % work.gap_parts;
  const int first = x / work.gap_parts * kWarps;
  if (first + warp <= g.key_tile_count) {
    const cuda::KeyGap gap = cuda::key_gap_before(g, first + warp);
    if (threadIdx.x == 0) gaps[warp] = gap;
  }
  __syncthreads();
  for (int i = 0; i < kWarps && first + i <= g.key_tile_count; ++i) {
    cuda::clear_gap(g, p.dk, g.head_dim, work.wide_dk, gaps[i], part, work.gap_parts);
    cuda::clear_gap(g, p.dv, g.head_dim_v, work.wide_dv, gaps[i], part, work.gap_parts);
  }
}

__device__ void clear_turns(int* turns, std::int64_t count) {
  const std::int64_t threads = 32 * kWarps;
  const std::int64_t blocks = std::int64_t{gridDim.x} * gridDim.y * gridDim.z;
  const std::int64_t block =
      (std::int64_t{blockIdx.z} * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  for (std::int64_t i = block * threads + threadIdx.y * 32 + threadIdx.x; i < count;
       i += blocks * threads) {
    turns[i] = 0;
  }
}

__global__ void __launch_bounds__(32 * kWarps)
    prepare_gradients(const __grid_constant__ cuda::Geometry g,
                      const __grid_constant__ BackwardParams p,
                      const __grid_constant__ KeySchedule schedule, int* turns,
                      const __grid_constant__ Work work) {
  let_next_kernel_start();
  await_kernel_before();
  auto x = static_cast<int>(blockIdx.x);
  clear_turns(turns, work.turns);
  if (x < work.schedule) {
    if (blockIdx.y != 0 || blockIdx.z != 0) return;
    const int i = x * kWarps + static_cast<int>(threadIdx.y);
    if (i == 0 && threadIdx.x == 0) {
      *schedule.drawn = 0;
      if (work.zero_flops && g.flops != nullptr) *g.flops = 0;
    }
    if (i < g.key_tile_count) {
      place_key_tile(g, schedule, i, static_cast<int>(threadIdx.x), work.ordered);
    }
    return;
  }
  x -= work.schedule;
  if (x < work.gaps) {
    if (static_cast<int>(blockIdx.y) < g.kv_heads) clear_key_gaps(g, p, work, x);
    return;
  }
  const std::int64_t first = std::int64_t{x - work.gaps} * kRowsOfBlock;
  cuda::clear_queries(g, p.dq, work.wide_dq, first, kWarps,
                      min(first + kRowsOfBlock, std::int64_t{g.rows}));
}

std::int64_t blocks_for(std::int64_t things, std::int64_t of_block) {
  return (things + of_block - 1) / of_block;
}

/// Keys that tiles of `tile_keys` cannot cover lie in gaps: a ring's step leaves out half of a
/// shard, and one block would go through it row by row.
int gap_parts(const cuda::Geometry& g, std::int64_t keys, int tile_keys) {
  const std::int64_t surely = keys - std::int64_t{tile_keys} * g.key_tile_count;
  return static_cast<int>(std::clamp<std::int64_t>(blocks_for(surely, 16 * kWarps), 1, 64));
}

}  // namespace

KernelEntries prepare_backward_entries() { return entries_of(&prepare_gradients); }

void prepare_backward(const cuda::Geometry& g, const BackwardParams& params,
                      const KeySchedule& schedule, int* turns, std::int64_t turn_count,
                      const LaunchContext& context) {
  Work work{};
  work.schedule = static_cast<int>(blocks_for(g.key_tile_count, kWarps));
  if (params.dkv_assign) {
    work.gap_parts = gap_parts(g, all_key_tokens(params.geometry), backward_keys(g.head_dim));
    work.gaps = static_cast<int>(blocks_for(g.key_tile_count + 1, kWarps)) * work.gap_parts;
  }
  work.wide_dq = cuda::aligned_rows(params.dq, g.head_dim);
  work.wide_dk = cuda::aligned_rows(params.dk, g.head_dim);
  work.wide_dv = cuda::aligned_rows(params.dv, g.head_dim_v);
  work.ordered = turns != nullptr;
  work.zero_flops = context.flops_assign;
  work.turns = turns == nullptr ? 0 : turn_count;
  const std::int64_t rows = params.dq_assign ? blocks_for(g.rows, kRowsOfBlock) : 0;
  const dim3 grid(static_cast<unsigned>(work.schedule + work.gaps + rows),
                  static_cast<unsigned>(g.heads), static_cast<unsigned>(g.batch));
  const Overlapped launch(grid, dim3(32, kWarps), 0, context.stream, context.behind_kernel);
  (void)cudaLaunchKernelEx(launch.config(), &prepare_gradients, g, params, schedule, turns, work);
  cuda::check_launch("hopper backward prepare");
}

}  // namespace annulus::attn::sm90
