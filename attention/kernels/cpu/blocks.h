#pragma once

#include "attention/kernels/cpu/tile_ops.h"
#include "attention/kernels/params.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

// How flash2 walks a launch: blocks of up to kRows query rows, each with its tiles; tiles cut into
// blocks of up to kKeys keys. Callbacks are templates because std::function may allocate.
namespace annulus::attn::cpu {

/// Query rows [row, row + rows) of the launch and the tiles that may touch them.
struct RowBlock {
  std::int64_t row = 0;
  std::int64_t rows = 0;
  std::span<const Tile> tiles;
  std::array<std::int64_t, kRows> tokens{};  ///< of each row
};

/// Keys that one tile product takes, for the first `rows` rows of its row block.
struct KeyBlock {
  std::int64_t token = 0;
  std::int64_t keys = 0;
  std::int64_t rows = 0;
  bool masked = false;  ///< apply `ranges`
  RowRanges ranges;
};

/// Tiles that begin at one row, and the rows they cover; no tile: rows nothing is seen by.
struct RowGroup {
  std::int64_t row = 0;
  std::int64_t rows = 0;
  std::span<const Tile> tiles;
};

/// Throws InvalidArgument where tiles that begin at different rows overlap.
void check_row_groups(const AttendGeometry& geometry);

/// The group that begins at `row`; its tiles begin at geometry.tiles[tile].
RowGroup row_group(const AttendGeometry& geometry, std::int64_t row, std::size_t tile);

void find_tokens(const AttendGeometry& geometry, RowBlock& block);

/// The part of `tile` from its key `first` on that meets `block`; rows <= 0: none.
KeyBlock key_block(const AttendGeometry& geometry, const RowBlock& block, const Tile& tile,
                   std::int64_t first);

/// Calls fn(RowBlock) in order; every row of the launch is in exactly one block.
template <typename Fn>
void for_each_row_block(const AttendGeometry& geometry, Fn&& fn) {
  std::size_t tile = 0;
  for (std::int64_t row = 0; row < geometry.rows;) {
    const RowGroup group = row_group(geometry, row, tile);
    for (std::int64_t first = 0; first < group.rows; first += kRows) {
      RowBlock block{row + first, std::min(kRows, group.rows - first), group.tiles, {}};
      find_tokens(geometry, block);
      fn(block);
    }
    row += group.rows;
    tile += group.tiles.size();
  }
}

/// Calls fn(KeyBlock) for the tiles of `block`, in tile order.
template <typename Fn>
void for_each_key_block(const AttendGeometry& geometry, const RowBlock& block, Fn&& fn) {
  for (const Tile& tile : block.tiles) {
    for (std::int64_t first = 0; first < tile.keys; first += kKeys) {
      const KeyBlock part = key_block(geometry, block, tile, first);
      if (part.rows > 0) fn(part);
    }
  }
}

}  // namespace annulus::attn::cpu
