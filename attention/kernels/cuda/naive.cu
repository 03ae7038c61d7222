// Attention forward as the definition has it: S of the listed tiles, P of whole rows, then O = P V,
// each in a kernel of its own. S and P lie in the workspace, f32, [batch][head][row][key]; so they
// grow with rows times keys. Any element type, any head dim.
#include "attention/kernels/cuda/device/blocks.cuh"
#include "attention/kernels/cuda/device/matrices.cuh"
#include "attention/kernels/cuda/launch.h"

namespace annulus::attn::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kTileRows = 128;

/// Block (tile, head, batch).
__global__ void __launch_bounds__(kThreads)
    scores_kernel(const __grid_constant__ Geometry g, const __grid_constant__ ForwardParams p,
                  float* memory) {
  const Tile tile = g.tiles[blockIdx.x];
  const KeySegment segment = g.keys[tile.segment];
  const std::int64_t head = blockIdx.y;
  const std::int64_t batch = blockIdx.z;
  if (!await_segment(g, segment)) return;
  if (threadIdx.x == 0) {
    count_flops(g, 2 * std::int64_t{tile.rows} * tile.keys * g.head_dim);
  }
  const Matrices m(g, memory);
  const Input k = keys_of(g, p, segment.source);
  const std::int64_t column = first_column(g, tile.segment) + tile.key;
  for (int r = 0; r < tile.rows; ++r) {
    const std::int64_t row = tile.row + r;
    const VisibleKeys visible = visible_in_tile(g, tile, row);
    const std::int64_t query = index_of(p.q, batch, token_of_row(g, row), head);
    float* scores = m.first + m.row(batch, head, row) + column;
    for (int j = static_cast<int>(threadIdx.x); j < tile.keys; j += kThreads) {
      if (!visible.sees(j)) continue;
      const std::int64_t key =
          index_of(k, batch, segment.token + tile.key + j, kv_head_of(g, head));
      scores[j] = logit_of(g, dot<float>(p.q, query, k, key, g.head_dim)).value;
    }
  }
}

/// Block (row, head, batch): one warp. P is of the whole sum, an earlier launch's included.
__global__ void softmax_kernel(const __grid_constant__ Geometry g,
                               const __grid_constant__ ForwardParams p, float* memory) {
  const Matrices m(g, memory);
  const int lane = static_cast<int>(threadIdx.x);
  for (std::int64_t i = blockIdx.x; i < g.rows; i += gridDim.x) {
    const float* scores = m.first + m.row(blockIdx.z, blockIdx.y, i);
    float* probability = m.second + m.row(blockIdx.z, blockIdx.y, i);
    float* lse = f32_row(p.lse, blockIdx.z, token_of_row(g, i), blockIdx.y);
    const float old = p.resume ? *lse : -kInfinity;
    float top = old;
    for (std::int64_t j = lane; j < m.keys; j += 32) top = fmaxf(top, scores[j]);
    top = warp_max(top);
    const float shift = top == -kInfinity ? 0.0F : top;
    float sum = 0.0F;
    for (std::int64_t j = lane; j < m.keys; j += 32) sum += expf(scores[j] - shift);
    sum = warp_sum(sum) + expf(old - shift);
    for (std::int64_t j = lane; j < m.keys; j += 32) {
      probability[j] = sum == 0.0F ? 0.0F : expf(scores[j] - shift) / sum;
    }
    __syncwarp();
    if (lane == 0) {
      m.keep_of(blockIdx.z, blockIdx.y, i) = sum == 0.0F ? 0.0F : expf(old - shift) / sum;
      *lse = sum == 0.0F ? -kInfinity : shift + logf(sum);
    }
  }
}

/// Block (128 * query tile + row, head, batch).
__global__ void __launch_bounds__(kThreads)
    output_kernel(const __grid_constant__ Geometry g, const __grid_constant__ ForwardParams p,
                  float* memory) {
  const int row_tile = static_cast<int>(blockIdx.x) / kTileRows;
  const int r = static_cast<int>(blockIdx.x) % kTileRows;
  const int begin = g.row_tiles[row_tile];
  const int end = g.row_tiles[row_tile + 1];
  const TileTotals totals = totals_of(g.tiles, begin, end);
  const std::int64_t head = blockIdx.y;
  const std::int64_t batch = blockIdx.z;
  if (r == 0 && threadIdx.x == 0) count_flops(g, 2 * totals.pairs * g.head_dim_v);
  if (r >= totals.rows) return;
  const Matrices m(g, memory);
  const std::int64_t row = g.tiles[begin].row + r;
  const std::int64_t token = token_of_row(g, row);
  const float keep = m.keep_of(batch, head, row);
  const float* state = keep > 0.0F ? f32_row(p.state, batch, token, head) : nullptr;
  const Output& to = p.finish ? p.out : p.state;
  for (int d = static_cast<int>(threadIdx.x); d < g.head_dim_v; d += kThreads) {
    float sum = state != nullptr ? keep * state[d] : 0.0F;
    for (int i = begin; i < end; ++i) {
      const Tile tile = g.tiles[i];
      if (r >= tile.rows) continue;
      const float* probability =
          m.second + m.row(batch, head, row) + first_column(g, tile.segment) + tile.key;
      const std::int64_t values = g.keys[tile.segment].token + tile.key;
      const Input v = values_of(g, p, g.keys[tile.segment].source);
      for (int j = 0; j < tile.keys; ++j) {
        if (probability[j] == 0.0F) continue;
        const std::int64_t index = index_of(v, batch, values + j, kv_head_of(g, head)) + d;
        sum += probability[j] * load_element<float>(v.data, v.dtype, index);
      }
    }
    store_element(to.data, p.finish ? to.dtype : DType::f32, index_of(to, batch, token, head) + d,
                  sum);
  }
}

}  // namespace

KernelEntries naive_forward_entries() {
  return fill_entries() + entries_of(&fill_matrix, &scores_kernel, &softmax_kernel, &output_kernel);
}

void naive_forward(const ForwardParams& params, const LaunchContext& context) {
  check_arguments(params.geometry, context, false, 0);
  fill_unvisited_rows(params, context);
  const Geometry g = geometry_of(params.geometry, context);
  if (g.row_tile_count == 0 || g.heads == 0 || g.batch == 0) return;
  auto* stream = static_cast<cudaStream_t>(context.stream);
  auto* memory = reinterpret_cast<float*>(context.workspace.data());
  const auto grid = [&](std::int64_t x) {
    return dim3(static_cast<unsigned>(x), static_cast<unsigned>(g.heads),
                static_cast<unsigned>(g.batch));
  };
  fill_matrix<<<grid(g.rows), kThreads, 0, stream>>>(g, memory, -kInfinity, false);
  scores_kernel<<<grid(g.tile_count), kThreads, 0, stream>>>(g, params, memory);
  softmax_kernel<<<grid(g.rows), 32, 0, stream>>>(g, params, memory);
  output_kernel<<<grid(std::int64_t{g.row_tile_count} * kTileRows), kThreads, 0, stream>>>(
      g, params, memory);
  check_launch("naive forward");
}

}  // namespace annulus::attn::cuda
