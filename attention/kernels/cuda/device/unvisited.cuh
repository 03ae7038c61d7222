#pragma once

#include "attention/kernels/cuda/device/blocks.cuh"
#include "attention/kernels/cuda/device/numbers.cuh"

namespace annulus::attn::cuda {

inline constexpr int kGapWarps = 8;  ///< of a block that fills gaps

/// Blocks that share the rows of the same gaps. Rows that tiles of `tile_rows` cannot cover lie in
/// gaps: a ring's step leaves out half of a shard, and one block would go through it row by row.
inline int gap_parts(const Geometry& g, int tile_rows) {
  const std::int64_t surely = g.rows - static_cast<std::int64_t>(tile_rows) * g.row_tile_count;
  constexpr std::int64_t kRowsOfPart = 16 * kGapWarps;
  constexpr std::int64_t kMost = 64;
  const std::int64_t parts = (surely + kRowsOfPart - 1) / kRowsOfPart;
  return static_cast<int>(parts < 1 ? 1 : parts > kMost ? kMost : parts);
}

/// Blocks across x, of 32 x kGapWarps threads: part x % parts of the gaps of x / parts.
inline unsigned gap_blocks(const Geometry& g, int parts) {
  return static_cast<unsigned>((g.row_tile_count / kGapWarps + 1) * parts);
}

struct RowRange {
  std::int64_t first, last;
};

/// One warp: the rows between query tile x - 1 and query tile x, which no tile names.
__device__ inline RowRange gap_before(const Geometry& g, int x) {
  if (x > g.row_tile_count) return {0, 0};
  std::int64_t first = 0;
  if (x > 0) {
    const int begin = g.row_tiles[x - 1];
    first = g.tiles[begin].row + totals_of(g.tiles, begin, g.row_tiles[x]).rows;
  }
  return {first, x < g.row_tile_count ? g.tiles[g.row_tiles[x]].row : g.rows};
}

/// One warp: out, lse and state of a row that no tile names.
__device__ inline void fill_row(const Geometry& g, const ForwardParams& p, std::int64_t row,
                                int head, int batch, int lane) {
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

/// Head blockIdx.y, batch blockIdx.z: every warp of the block finds the gap before query tile
/// kGapWarps * block + its number, then all take rows of all, `part` of `parts`.
__device__ inline void fill_gaps(const Geometry& g, const ForwardParams& p, int block, int part,
                                 int parts) {
  __shared__ RowRange gaps[kGapWarps];
  const auto lane = static_cast<int>(threadIdx.x);
  const auto warp = static_cast<int>(threadIdx.y);
  const RowRange mine = gap_before(g, block * kGapWarps + warp);
  if (lane == 0) gaps[warp] = mine;
  __syncthreads();
  for (const RowRange& gap : gaps) {
    for (std::int64_t row = gap.first + part * kGapWarps + warp; row < gap.last;
         row += parts * kGapWarps) {
      fill_row(g, p, row, static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.z), lane);
    }
  }
}

}  // namespace annulus::attn::cuda
