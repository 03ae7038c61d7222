#pragma once

#include <cstdint>

// Which query tile of which head is computed when: the longest first, so that what is left for the
// last blocks is short. Blocks draw from one counter. Heads go in sections whose keys and values
// stay in L2 together; within a section a query tile is drawn for all its heads in turn.
namespace annulus::attn::sm90 {

/// A query tile: rows [row, row + rows) of the launch and its tiles [begin, end).
struct QueryTile {
  std::int32_t row, rows, begin, end;
};

/// A query tile and whose it is. begin == end: there are no more.
struct Item {
  QueryTile tile;
  std::int32_t head, kv_head, batch;
  std::int32_t number;  ///< of the block's items
};

struct Schedule {
  int* drawn;        ///< items that were drawn beside each block's first; 0 at launch
  QueryTile* tiles;  ///< by number of tiles, longest first
  std::int32_t all;  ///< query tiles times heads times batches
  std::int32_t head_count, section;  ///< heads times batches, of all and of a section
};

/// Bytes of workspace for `count` query tiles: the counter and the tiles.
constexpr std::int64_t kCounterBytes = 64;
constexpr std::int64_t schedule_bytes(std::int64_t count) {
  return kCounterBytes + count * static_cast<std::int64_t>(sizeof(QueryTile));
}

}  // namespace annulus::attn::sm90
