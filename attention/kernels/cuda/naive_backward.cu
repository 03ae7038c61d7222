// The backward pass of naive: P and dS of the listed tiles into the workspace (as naive.cu has its
// matrices), then dQ = dS K row by row and dV = P^T dO, dK = dS^T Q key by key. f32, fixed order.
#include "attention/kernels/cuda/device/blocks.cuh"
#include "attention/kernels/cuda/device/matrices.cuh"
#include "attention/kernels/cuda/launch.h"

namespace annulus::attn::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kTileSize = 128;

/// Block (tile, head, batch).
__global__ void __launch_bounds__(kThreads)
    gradients_kernel(const __grid_constant__ Geometry g, const __grid_constant__ BackwardParams p,
                     float* memory) {
  const Tile tile = g.tiles[blockIdx.x];
  const KeySegment segment = g.keys[tile.segment];
  const std::int64_t head = blockIdx.y;
  const std::int64_t batch = blockIdx.z;
  if (!await_segment(g, segment)) return;
  if (!await_rows_of_block(g, head, tile.row, tile.rows)) return;  // kernels behind find them there
  if (threadIdx.x == 0) {
    count_flops(g, 2 * std::int64_t{tile.rows} * tile.keys * (g.head_dim + g.head_dim_v));
  }
  const Matrices m(g, memory);
  const std::int64_t column = first_column(g, tile.segment) + tile.key;
  for (int r = 0; r < tile.rows; ++r) {
    const std::int64_t row = tile.row + r;
    const VisibleKeys visible = visible_in_tile(g, tile, row);
    const std::int64_t token = token_of_row(g, row);
    const std::int64_t place = m.row(batch, head, row) + column;
    for (int j = static_cast<int>(threadIdx.x); j < tile.keys; j += kThreads) {
      if (!visible.sees(j)) continue;
      const auto pair = gradient_of<float>(g, p, batch, head, token, segment.source,
                                           segment.token + tile.key + j);
      m.first[place + j] = pair.p;
      m.second[place + j] = pair.ds;
    }
  }
}

/// Block (128 * query tile + row, head, batch).
__global__ void __launch_bounds__(kThreads)
    dq_kernel(const __grid_constant__ Geometry g, const __grid_constant__ BackwardParams p,
              float* memory) {
  const int row_tile = static_cast<int>(blockIdx.x) / kTileSize;
  const int r = static_cast<int>(blockIdx.x) % kTileSize;
  const int begin = g.row_tiles[row_tile];
  const int end = g.row_tiles[row_tile + 1];
  const TileTotals totals = totals_of(g.tiles, begin, end);
  const std::int64_t head = blockIdx.y;
  const std::int64_t batch = blockIdx.z;
  if (r == 0 && threadIdx.x == 0) count_flops(g, 2 * totals.pairs * g.head_dim);
  if (r >= totals.rows) return;
  const Matrices m(g, memory);
  const std::int64_t row = g.tiles[begin].row + r;
  float* to = f32_row(p.dq, batch, token_of_row(g, row), head);
  for (int d = static_cast<int>(threadIdx.x); d < g.head_dim; d += kThreads) {
    float sum = 0.0F;
    for (int i = begin; i < end; ++i) {
      const Tile tile = g.tiles[i];
      if (r >= tile.rows) continue;
      const float* ds =
          m.second + m.row(batch, head, row) + first_column(g, tile.segment) + tile.key;
      const std::int64_t keys = g.keys[tile.segment].token + tile.key;
      const Input k = keys_of(g, p, g.keys[tile.segment].source);
      for (int j = 0; j < tile.keys; ++j) {
        if (ds[j] == 0.0F) continue;
        const std::int64_t index = index_of(k, batch, keys + j, kv_head_of(g, head)) + d;
        sum += ds[j] * load_element<float>(k.data, k.dtype, index);
      }
    }
    to[d] += static_cast<float>(g.softmax_scale) * sum;
  }
}

/// Sum over the query rows that see key `j` of a key tile: one element of dk or dv.
__device__ float sum_over_rows(const Geometry& g, const Matrices& m, const float* scores,
                               const Input& source, int begin, int end, HeadRange heads, int j,
                               int d) {
  const auto batch = static_cast<std::int64_t>(blockIdx.z);
  float sum = 0.0F;
  for (int head = heads.first; head < heads.last; ++head) {
    for (int i = begin; i < end; ++i) {
      const Tile tile = g.tiles_by_key[i];
      if (j >= tile.keys) continue;
      const std::int64_t column = first_column(g, tile.segment) + tile.key + j;
      for (int r = 0; r < tile.rows; ++r) {
        const std::int64_t row = tile.row + r;
        const float score = scores[m.row(batch, head, row) + column];
        if (score == 0.0F) continue;
        const std::int64_t index = index_of(source, batch, token_of_row(g, row), head) + d;
        sum += score * load_element<float>(source.data, source.dtype, index);
      }
    }
  }
  return sum;
}

/// Block (128 * key tile + key, key/value head, batch).
__global__ void __launch_bounds__(kThreads)
    dkv_kernel(const __grid_constant__ Geometry g, const __grid_constant__ BackwardParams p,
               float* memory) {
  const int key_tile = static_cast<int>(blockIdx.x) / kTileSize;
  const int j = static_cast<int>(blockIdx.x) % kTileSize;
  const int begin = g.key_tiles[key_tile];
  const int end = g.key_tiles[key_tile + 1];
  const TileTotals totals = totals_of(g.tiles_by_key, begin, end);
  const std::int64_t kv = blockIdx.y + g.first_kv_head;
  const HeadRange heads = heads_of(g, kv);
  if (j == 0 && threadIdx.x == 0) {
    count_flops(g, 2 * totals.pairs * (heads.last - heads.first) * (g.head_dim + g.head_dim_v));
  }
  if (j >= totals.keys) return;
  const Matrices m(g, memory);
  const Tile first = g.tiles_by_key[begin];
  const std::int64_t token = g.keys[first.segment].token + first.key + j;
  float* dk = f32_row(p.dk, blockIdx.z, token, kv);
  float* dv = f32_row(p.dv, blockIdx.z, token, kv);
  for (int d = static_cast<int>(threadIdx.x); d < g.head_dim_v; d += kThreads) {
    dv[d] += sum_over_rows(g, m, m.first, p.dout, begin, end, heads, j, d);
  }
  for (int d = static_cast<int>(threadIdx.x); d < g.head_dim; d += kThreads) {
    dk[d] += static_cast<float>(g.softmax_scale) *
             sum_over_rows(g, m, m.second, p.q, begin, end, heads, j, d);
  }
}

}  // namespace

KernelEntries naive_backward_entries() {
  return clear_entries() + entries_of(&fill_matrix, &gradients_kernel, &dq_kernel, &dkv_kernel);
}

void naive_backward(const BackwardParams& params, const LaunchContext& context) {
  check_arguments(params.geometry, context, true, 0);
  clear_gradients(params, context, 0);
  const Geometry g = geometry_of(params.geometry, context);
  if (g.row_tile_count == 0 || g.heads == 0 || g.batch == 0) return;
  auto* stream = static_cast<cudaStream_t>(context.stream);
  auto* memory = reinterpret_cast<float*>(context.workspace.data());
  const auto grid = [&](std::int64_t x, std::int64_t heads) {
    return dim3(static_cast<unsigned>(x), static_cast<unsigned>(heads),
                static_cast<unsigned>(g.batch));
  };
  fill_matrix<<<grid(g.rows, g.heads), kThreads, 0, stream>>>(g, memory, 0.0F, true);
  gradients_kernel<<<grid(g.tile_count, g.heads), kThreads, 0, stream>>>(g, params, memory);
  dq_kernel<<<grid(std::int64_t{g.row_tile_count} * kTileSize, g.heads), kThreads, 0, stream>>>(
      g, params, memory);
  dkv_kernel<<<grid(std::int64_t{g.key_tile_count} * kTileSize, g.kv_heads), kThreads, 0, stream>>>(
      g, params, memory);
  check_launch("naive backward");
}

}  // namespace annulus::attn::cuda
