#pragma once

#include "attention/kernels/cuda/device/places.cuh"
#include "attention/kernels/sm90/schedule.h"

#include <cstdint>

// Packed heads: where few rows meet many keys, the query heads of a key/value head stand in one
// query tile, so that its keys are read and multiplied once. Row r of head h is row r * group + h %
// group of packed head h / group. Queries, tiles and intervals are copied so; the forward's blocks
// know nothing of it, and the merge takes rows back to where they belong.
namespace annulus::attn::sm90 {

/// Row and head that a packed row of a packed head is.
struct Unpacked {
  std::int64_t row, head;
  __device__ Unpacked(const Parts& parts, std::int64_t packed_row, std::int64_t packed_head)
      : row(packed_row / parts.group), head(packed_head * parts.group + packed_row % parts.group) {}
};

struct alignas(16) Piece {
  std::uint32_t words[4];
};

/// 16 bytes of a row of queries.
__device__ inline void pack_piece(const cuda::Geometry& g, const Input& q, const Parts& parts,
                                  std::int64_t index) {
  const std::int64_t pieces = g.head_dim / 8;
  const std::int64_t rows = g.rows * parts.group;
  const std::int64_t heads = g.heads / parts.group;
  const std::int64_t line = index / pieces;  // [batch, packed head, packed row]
  const Unpacked from(parts, line % rows, line / rows % heads);
  const auto* row =
      static_cast<const std::uint16_t*>(q.data) +
      cuda::index_of(q, line / rows / heads, cuda::token_of_row(g, from.row), from.head);
  reinterpret_cast<Piece*>(parts.q)[index] = reinterpret_cast<const Piece*>(row)[index % pieces];
}

/// Thread `thread` of `threads`: its share of all copies.
__device__ inline void pack_heads(const cuda::Geometry& g, const Input& q, const Parts& parts,
                                  std::int64_t thread, std::int64_t threads) {
  if (parts.group == 1) return;
  const std::int64_t pieces = g.batch * g.heads * g.rows * (g.head_dim / 8);
  for (std::int64_t i = thread; i < pieces; i += threads) pack_piece(g, q, parts, i);
  for (std::int64_t i = thread; i < g.tile_count; i += threads) {
    Tile tile = g.tiles[i];
    tile.row *= parts.group;
    tile.rows *= parts.group;
    parts.key_tiles[i] = tile;
  }
  for (std::int64_t i = thread; i < 2 * g.rows * parts.group; i += threads) {
    parts.intervals[i] = g.intervals[2 * (i / 2 / parts.group) + i % 2];
  }
}

}  // namespace annulus::attn::sm90
