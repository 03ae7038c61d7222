#pragma once

#include "attention/kernels/tile_index.h"
#include "attention/row_table.h"

#include <annulus/layout.h>

#include <span>

namespace annulus::attn {

/// The tiles of `table` with these key segments, and their index, joined: what join_tiles makes of
/// RowTable::tiles, bit by bit, but single tiles are never listed. Time and memory grow with what
/// is returned and with query tiles times segments, not with tiles. Not where table.cut_to_keys().
/// Throws InvalidArgument where a single tile passes the limits.
JoinedTiles joined_tiles(const RowTable& table, const TileGrid& grid,
                         std::span<const TokenRange> keys, const TileLimits& limits);

}  // namespace annulus::attn
