#pragma once

#include "attention/kernels/cuda/device/blocks.cuh"
#include "attention/kernels/cuda/device/numbers.cuh"

namespace annulus::attn::cuda {

/// Head blockIdx.y, batch blockIdx.z, one warp across x: out, lse and state of the rows between
/// query tile x - 1 and query tile x, which no tile names.
__device__ inline void fill_rows_before(const Geometry& g, const ForwardParams& p, int x) {
  const auto lane = static_cast<int>(threadIdx.x);
  const auto head = static_cast<int>(blockIdx.y);
  const auto batch = static_cast<int>(blockIdx.z);
  if (x > g.row_tile_count) return;
  std::int64_t first = 0;
  if (x > 0) {
    const int begin = g.row_tiles[x - 1];
    first = g.tiles[begin].row + totals_of(g.tiles, begin, g.row_tiles[x]).rows;
  }
  const std::int64_t last = x < g.row_tile_count ? g.tiles[g.row_tiles[x]].row : g.rows;
  for (std::int64_t row = first; row < last; ++row) {
    const std::int64_t token = token_of_row(g, row);
    float* lse = f32_row(p.lse, batch, token, head);
    const bool seen = p.resume && *lse != -kInfinity;
    const float* state = seen ? f32_row(p.state, batch, token, head) : nullptr;
    for (int d = lane; d < g.head_dim_v; d += 32) {
      const float value = seen ? state[d] : 0.0F;
      if (p.finish) {
        store_element(p.out.data, p.out.dtype, index_of(p.out, batch, token, head) + d, value);
      } else if (!seen) {
        f32_row(p.state, batch, token, head)[d] = value;
      }
    }
    __syncwarp();
    if (!seen && lane == 0) *lse = -kInfinity;
  }
}

}  // namespace annulus::attn::cuda
