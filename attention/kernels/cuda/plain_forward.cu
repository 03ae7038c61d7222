// Attention forward without tensor cores: any element type, head dims up to 512, any alignment. A
// warp serves one row: its lanes share the keys of a tile 32 at a time for scores, then the dims of
// the output. f32 arithmetic, online softmax. No shared memory. Serves flash2 where no variant
// does; as flash1 (FlashAttention, Dao 2022) it keeps O, l and m in memory between tiles, in the
// workspace.
#include "attention/kernels/cuda/device/blocks.cuh"
#include "attention/kernels/cuda/device/pairs.cuh"
#include "attention/kernels/cuda/launch.h"

namespace annulus::attn::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kRowsPerBlock = kThreads / 32;
constexpr int kPerLane = 512 / 32;

struct RowResult {
  float o[kPerLane];
  float max, sum;
};

struct RowPlace {
  int batch, head, lane;
  std::int64_t row, token;
};

__device__ void begin_row(const Geometry& g, const ForwardParams& p, const RowPlace& at,
                          RowResult& r) {
  for (float& x : r.o) x = 0.0F;
  r.max = -kInfinity;
  r.sum = 0.0F;
  if (!p.resume) return;
  const float lse = *f32_row(p.lse, at.batch, at.token, at.head);
  if (lse == -kInfinity) return;
  r.max = lse;
  r.sum = 1.0F;
  const float* state = f32_row(p.state, at.batch, at.token, at.head);
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int d = at.lane + 32 * i;
    if (d < g.head_dim_v) r.o[i] = state[d];
  }
}

/// 32 keys of one tile of a segment, from `offset` on; `token` is of the tile's first.
__device__ void add_keys(const Geometry& g, const ForwardParams& p, const RowPlace& at,
                         const VisibleKeys& visible, int keys, std::int32_t source,
                         std::int64_t token, int offset, RowResult& r) {
  const std::int64_t kv = kv_head_of(g, at.head);
  const int j = offset + at.lane;
  const bool on = j < keys && visible.sees(j);
  float score = -kInfinity;
  if (on) {
    const Input k = keys_of(g, p, source);
    const float product = dot<float>(p.q, index_of(p.q, at.batch, at.token, at.head), k,
                                     index_of(k, at.batch, token + j, kv), g.head_dim);
    score = logit_of(g, product).value;
  }
  const float top = fmaxf(r.max, warp_max(score));
  // A score that is no number passes by the maximum; its probability shows it.
  if (__ballot_sync(0xffffffffU, on) == 0) return;
  const float shift = top == -kInfinity ? 0.0F : top;
  const float keep = expf(r.max - shift);
  const float probability = on ? expf(score - shift) : 0.0F;
  r.sum = r.sum * keep + warp_sum(probability);
  r.max = top;
  for (float& x : r.o) x *= keep;
  const Input v = values_of(g, p, source);
  for (int i = 0; i < 32 && offset + i < keys; ++i) {
    const float weight = __shfl_sync(0xffffffffU, probability, i);
    if (weight == 0.0F) continue;
    const std::int64_t index = index_of(v, at.batch, token + offset + i, kv);
#pragma unroll
    for (int n = 0; n < kPerLane; ++n) {
      const int d = at.lane + 32 * n;
      if (d < g.head_dim_v) {
        r.o[n] += weight * load_element<float>(v.data, v.dtype, index + d);
      }
    }
  }
}

/// O, l and m to memory and back.
__device__ void pass_through(const Geometry& g, const RowPlace& at, float* memory, bool store,
                             RowResult& r) {
  const std::int64_t width = g.head_dim_v + 2;
  float* row =
      memory +
      ((static_cast<std::int64_t>(at.batch) * g.heads + at.head) * g.rows + at.row) * width;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int d = at.lane + 32 * i;
    if (d >= g.head_dim_v) continue;
    if (store) {
      row[d] = r.o[i];
    } else {
      r.o[i] = row[d];
    }
  }
  if (store && at.lane == 0) {
    row[g.head_dim_v] = r.max;
    row[g.head_dim_v + 1] = r.sum;
  }
  __syncwarp();
  if (!store) {
    r.max = row[g.head_dim_v];
    r.sum = row[g.head_dim_v + 1];
  }
}

__device__ void finish_row(const Geometry& g, const ForwardParams& p, const RowPlace& at,
                           const RowResult& r) {
  const bool unseen = r.sum == 0.0F;
  const Output& to = p.finish ? p.out : p.state;
  const DType dtype = p.finish ? p.out.dtype : DType::f32;
  const std::int64_t index = index_of(to, at.batch, at.token, at.head);
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int d = at.lane + 32 * i;
    if (d < g.head_dim_v) {
      store_element(to.data, dtype, index + d, unseen ? 0.0F : r.o[i] / r.sum);
    }
  }
  if (at.lane == 0) {
    *f32_row(p.lse, at.batch, at.token, at.head) = unseen ? -kInfinity : r.max + logf(r.sum);
  }
}

template <bool kMemory>
__global__ void __launch_bounds__(kThreads)
    plain_forward_kernel(const __grid_constant__ Geometry g,
                         const __grid_constant__ ForwardParams p, float* memory) {
  const int parts = static_cast<int>(gridDim.x) / g.row_tile_count;
  const int row_tile = static_cast<int>(blockIdx.x) / parts;
  const int part = static_cast<int>(blockIdx.x) % parts;
  const int begin = g.row_tiles[row_tile];
  const int end = g.row_tiles[row_tile + 1];
  const TileTotals totals = totals_of(g.tiles, begin, end);
  if (part == 0 && threadIdx.x == 0) {
    count_flops(g, 2 * totals.pairs * (g.head_dim + g.head_dim_v));
  }
  const int r = part * kRowsPerBlock + static_cast<int>(threadIdx.x / 32U);
  if (r >= totals.rows) return;
  RowPlace at{static_cast<int>(blockIdx.z), static_cast<int>(blockIdx.y),
              static_cast<int>(threadIdx.x & 31U), g.tiles[begin].row + r, 0};
  at.token = token_of_row(g, at.row);
  RowResult result;
  begin_row(g, p, at, result);
  bool kept = false;
  for (int i = begin; i < end; ++i) {
    const Tile tile = g.tiles[i];
    const KeySegment segment = g.keys[tile.segment];
    if (r >= tile.rows) continue;
    if (!await_segment_warp(g, segment)) return;
    if (kMemory && kept) pass_through(g, at, memory, false, result);
    const VisibleKeys visible = visible_in_tile(g, tile, at.row);
    for (int offset = 0; offset < tile.keys; offset += 32) {
      add_keys(g, p, at, visible, tile.keys, segment.source, segment.token + tile.key, offset,
               result);
    }
    if (kMemory) pass_through(g, at, memory, true, result);
    kept = true;
  }
  finish_row(g, p, at, result);
}

template <bool kMemory>
void launch(const ForwardParams& params, const LaunchContext& context, int tile_rows,
            std::int64_t bytes) {
  check_arguments(params.geometry, context, false, bytes);
  fill_unvisited_rows(params, context, tile_rows);
  const Geometry g = geometry_of(params.geometry, context);
  if (g.row_tile_count == 0 || g.heads == 0 || g.batch == 0) return;
  const dim3 grid(static_cast<unsigned>(g.row_tile_count * (tile_rows / kRowsPerBlock)),
                  static_cast<unsigned>(g.heads), static_cast<unsigned>(g.batch));
  plain_forward_kernel<kMemory><<<grid, kThreads, 0, static_cast<cudaStream_t>(context.stream)>>>(
      g, params, reinterpret_cast<float*>(context.workspace.data()));
  check_launch("plain forward");
}

}  // namespace

KernelEntries plain_forward_entries() {
  return fill_entries() + entries_of(&plain_forward_kernel<false>);
}

KernelEntries flash1_forward_entries() {
  return fill_entries() + entries_of(&plain_forward_kernel<true>);
}

void plain_forward(const ForwardParams& params, const LaunchContext& context, int tile_rows) {
  launch<false>(params, context, tile_rows, 0);
}

void flash1_forward(const ForwardParams& params, const LaunchContext& context) {
  const AttendGeometry& g = params.geometry;
  launch<true>(params, context, 128, g.batch * g.heads * g.rows * (g.head_dim_v + 2) * 4);
}

}  // namespace annulus::attn::cuda
