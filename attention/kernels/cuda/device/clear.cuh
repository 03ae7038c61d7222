#pragma once

#include "attention/kernels/cuda/device/blocks.cuh"

#include <cstddef>
#include <cstdint>

// The zeroes that gradients begin with, by blocks of 32 x 8 threads: 32 across a row, in pieces of
// 16 bytes where `wide`.
namespace annulus::attn::cuda {

inline constexpr int kClearRows = 8;  ///< rows that a block clears at once

/// May rows of `dim` elements be written 16 bytes at a time?
inline bool aligned_rows(const Output& to, std::int64_t dim) {
  const auto address = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(to.data));
  const std::int64_t elements = to.batch_stride | to.token_stride | to.head_stride | dim;
  return ((address | elements * size_of(to.dtype)) & 15) == 0;
}

__device__ inline void clear_row(std::byte* row, std::int64_t bytes, bool wide) {
  const auto x = static_cast<int>(threadIdx.x);
  if (wide) {
    for (std::int64_t i = 16 * x; i < bytes; i += 512) {
      *reinterpret_cast<uint4*>(row + i) = make_uint4(0, 0, 0, 0);
    }
  } else {
    for (std::int64_t i = 2 * x; i < bytes; i += 64) {
      *reinterpret_cast<std::uint16_t*>(row + i) = 0;
    }
  }
}

/// dQ of head blockIdx.y and batch blockIdx.z: rows `first`, `first` + `step`, ...; `first` is the
/// block's.
__device__ inline void clear_queries(const Geometry& g, const Output& to, bool wide,
                                     std::int64_t first, std::int64_t step, std::int64_t last) {
  for (std::int64_t row = first + threadIdx.y; row < last; row += step) {
    clear_row(row_bytes(to, blockIdx.z, token_of_row(g, row), blockIdx.y), 4 * g.head_dim, wide);
  }
}

/// dK or dV of key/value head blockIdx.y and batch blockIdx.z: keys [first, last) of one segment,
/// `part` of `parts` of them.
__device__ inline void clear_segment(const Geometry& g, const Output& to, std::int64_t dim,
                                     bool wide, const KeySegment& segment, std::int64_t first,
                                     std::int64_t last, int part = 0, int parts = 1) {
  for (std::int64_t j = first + part * kClearRows + threadIdx.y; j < last;
       j += std::int64_t{parts} * kClearRows) {
    clear_row(row_bytes(to, blockIdx.z, segment.token + j, blockIdx.y + g.first_kv_head),
              dim * element_bytes(to.dtype), wide);
  }
}

/// Keys that no tile names: from `key` of `segment` on, to before `end_key` of `end_segment`.
struct KeyGap {
  int segment, end_segment;
  std::int64_t key, end_key;
};

/// One warp: the keys between key tile x - 1 and key tile x.
__device__ inline KeyGap key_gap_before(const Geometry& g, int x) {
  KeyGap gap{0, g.key_count, 0, 0};
  if (x > 0) {
    const int begin = g.key_tiles[x - 1];
    gap.segment = g.tiles_by_key[begin].segment;
    gap.key = g.tiles_by_key[begin].key + totals_of(g.tiles_by_key, begin, g.key_tiles[x]).keys;
  }
  if (x < g.key_tile_count) {
    gap.end_segment = g.tiles_by_key[g.key_tiles[x]].segment;
    gap.end_key = g.tiles_by_key[g.key_tiles[x]].key;
  }
  return gap;
}

__device__ inline void clear_gap(const Geometry& g, const Output& to, std::int64_t dim, bool wide,
                                 const KeyGap& gap, int part = 0, int parts = 1) {
  for (int s = gap.segment; s <= gap.end_segment && s < g.key_count; ++s) {
    clear_segment(g, to, dim, wide, g.keys[s], s == gap.segment ? gap.key : 0,
                  s == gap.end_segment ? gap.end_key : g.keys[s].count, part, parts);
  }
}

}  // namespace annulus::attn::cuda
