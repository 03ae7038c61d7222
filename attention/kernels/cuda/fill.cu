// What no tile names: rows without keys, and the zeroes that gradients begin with. Grids follow the
// tile index.
#include "attention/kernels/cuda/device/clear.cuh"
#include "attention/kernels/cuda/device/unvisited.cuh"
#include "attention/kernels/cuda/launch.h"

namespace annulus::attn::cuda {

namespace {

constexpr int kThreads = 128;

__global__ void fill_rows(const __grid_constant__ Geometry g,
                          const __grid_constant__ ForwardParams p, int parts) {
  const auto x = static_cast<int>(blockIdx.x);
  fill_gaps(g, p, x / parts, x % parts, parts);
}

__global__ void clear_rows(const __grid_constant__ Geometry g, const Output to, bool wide) {
  clear_queries(g, to, wide, blockIdx.x * kClearRows, gridDim.x * kClearRows, g.rows);
}

__global__ void clear_keys(const __grid_constant__ Geometry g, const Output to, std::int64_t dim,
                           bool wide) {
  for (int i = 0; i < g.key_count; ++i) {
    clear_segment(g, to, dim, wide, g.keys[i], 0, g.keys[i].count, static_cast<int>(blockIdx.x),
                  static_cast<int>(gridDim.x));
  }
}

/// Block x: the keys between key tile x - 1 and key tile x.
__global__ void clear_key_gaps(const __grid_constant__ Geometry g, const Output to,
                               std::int64_t dim, bool wide) {
  clear_gap(g, to, dim, wide, key_gap_before(g, static_cast<int>(blockIdx.x)));
}

__global__ void clear_turns(int* turns, std::int64_t count) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) turns[i] = 0;
}

}  // namespace

void fill_unvisited_rows(const ForwardParams& params, const LaunchContext& context, int tile_rows) {
  const Geometry g = geometry_of(params.geometry, context);
  if (g.heads == 0 || g.batch == 0 || g.rows == 0) return;
  if (params.geometry.covered_rows == g.rows) return;
  const int parts = gap_parts(g, tile_rows);
  const dim3 grid(gap_blocks(g, parts), static_cast<unsigned>(g.heads),
                  static_cast<unsigned>(g.batch));
  fill_rows<<<grid, dim3(32, kGapWarps), 0, static_cast<cudaStream_t>(context.stream)>>>(g, params,
                                                                                         parts);
  check_launch("fill_rows");
}

KernelEntries fill_entries() { return entries_of(&fill_rows); }

KernelEntries clear_entries() {
  return entries_of(&clear_turns, &clear_rows, &clear_keys, &clear_key_gaps);
}

void clear_gradients(const BackwardParams& params, const LaunchContext& context, std::int64_t turns,
                     KeyGradients keys) {
  const Geometry g = geometry_of(params.geometry, context);
  auto* stream = static_cast<cudaStream_t>(context.stream);
  if (g.heads == 0 || g.batch == 0) return;
  if (turns > 0) {
    clear_turns<<<static_cast<unsigned>((turns + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
        reinterpret_cast<int*>(context.workspace.data()), turns);
    check_launch("clear_turns");
  }
  const auto heads = static_cast<unsigned>(g.heads);
  const auto kv_heads = static_cast<unsigned>(g.kv_heads);
  const auto batch = static_cast<unsigned>(g.batch);
  const dim3 threads(32, kClearRows);
  if (params.dq_assign && g.rows > 0) {
    const std::int64_t blocks = (g.rows + 31) / 32;  // 4 rows a thread
    const dim3 grid(static_cast<unsigned>(blocks < 65536 ? blocks : 65536), heads, batch);
    clear_rows<<<grid, threads, 0, stream>>>(g, params.dq, aligned_rows(params.dq, g.head_dim));
    check_launch("clear_rows");
  }
  if (!params.dkv_assign || g.key_count == 0) return;
  const bool gaps = keys == KeyGradients::kernel_assigns && g.key_tile_count > 0;
  const dim3 grid(gaps ? static_cast<unsigned>(g.key_tile_count + 1) : 256, kv_heads, batch);
  const auto kernel = gaps ? &clear_key_gaps : &clear_keys;
  kernel<<<grid, threads, 0, stream>>>(g, params.dk, g.head_dim,
                                       aligned_rows(params.dk, g.head_dim));
  kernel<<<grid, threads, 0, stream>>>(g, params.dv, g.head_dim_v,
                                       aligned_rows(params.dv, g.head_dim_v));
  check_launch("clear_keys");
}

}  // namespace annulus::attn::cuda
