#pragma once

#include "attention/kernels/params.h"

#include <cstdint>
#include <span>
#include <vector>

namespace annulus::attn {

/// AttendGeometry's index over a tile list, on the host.
struct TileIndex {
  std::vector<std::int32_t> row_tiles;
  std::vector<Tile> tiles_by_key;
  std::vector<std::int32_t> key_tiles;
  std::vector<TilePlace> places;
  std::int64_t covered_rows = -1;  ///< of all query tiles; -1: not counted
};

/// What kernels that share tiles among blocks demand of them: no tile is larger than this.
struct TileLimits {
  std::int64_t rows = 128;
  std::int64_t keys = 128;
};

/// The same pairs in tiles whose keys overlap only where they begin at the same one: each is cut
/// where another of its segment begins. For lists whose tiles are cut to what rows see, not to a
/// grid (RowTable::cut_to_keys); key tiles of a grid come out as they are.
std::vector<Tile> disjoint_key_tiles(std::span<const Tile> tiles);

/// Of tiles sorted by (row, segment, key). Throws InvalidArgument where they are not, where query
/// tiles or key tiles overlap, and where a tile passes the limits or is empty.
TileIndex make_tile_index(std::span<const Tile> tiles, const TileLimits& limits = {});

/// A tile list and its index with neighbours joined: in a query tile's list along the keys, in a
/// key tile's along the rows, as long as rows or keys, segment and kind (full, partial) stay the
/// same. Lists then grow with the sequence, not with its square.
struct JoinedTiles {
  std::vector<Tile> tiles;
  TileIndex index;  ///< without places: turns are of single tiles
};

/// For kernels that walk a tile of any length in steps of their own (Kernel::joined_tiles).
JoinedTiles join_tiles(std::span<const Tile> tiles, const TileIndex& index);

}  // namespace annulus::attn
