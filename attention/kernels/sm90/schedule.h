#pragma once

#include "attention/kernels/params.h"

#include <cstdint>

// Which query tile of which head is computed when: the longest first, so that what is left for the
// last blocks is short. Blocks draw from one counter. Heads go in sections whose keys and values
// stay in L2 together; within a section a query tile is drawn for all its heads in turn.
namespace annulus::attn::sm90 {

/// A query tile: rows [row, row + rows) of the launch and its tiles [begin, end), each of any
/// number of keys. Or a part of one: `steps` steps of its list, from key `skip` of tile `begin` on.
struct QueryTile {
  std::int32_t row, rows, begin, end;
  std::int32_t steps;  ///< that its keys are taken in
  std::int32_t skip;   ///< keys of the first tile that are another part's
  std::int64_t token;  ///< of the first row; -1: its rows are of several query segments
  std::int64_t place;  ///< the same in lse and state, where parts have places of their own
};

/// A key tile: at most `keys` keys, and its tiles [begin, end) of the list by key.
struct KeyTile {
  std::int32_t keys, begin, end;
};

/// A query tile and whose it is, or a key tile and its key/value head. begin == end: there are no
/// more.
template <typename Tile>
struct ItemOf {
  Tile tile;
  std::int32_t head, batch;
};
using KeyItem = ItemOf<KeyTile>;

/// What the forward is told of a query tile.
struct Item {
  QueryTile tile;
  std::int32_t head, kv_head, batch;
};

/// Counters of a schedule that is kept from call to call. All are 0 between launches: the last
/// block of one that leaves sees to it.
struct Kept {
  int drawn;
  unsigned left;             ///< blocks that have
  unsigned long long flops;  ///< of those
};

template <typename Tile>
struct ScheduleOf {
  int* drawn;        ///< items that were drawn beside each block's first; 0 at launch
  Tile* tiles;       ///< by number of steps, or of a key tile's tiles, longest first
  std::int32_t all;  ///< query tiles times heads times batches
  std::int32_t head_count, section;  ///< heads times batches, of all and of a section
  std::int32_t sections;             ///< the last has what is left
  std::int32_t parts = 1;            ///< places in `tiles` for each query tile
  Kept* kept = nullptr;              ///< forward; null: a kernel before makes the schedule
  bool flops_assign = false;         ///< with `kept`: LaunchContext
};
using Schedule = ScheduleOf<QueryTile>;
/// Backward: of key tiles and key/value heads.
using KeySchedule = ScheduleOf<KeyTile>;

/// Split over keys (split.h): each query tile is walked in at most `most` parts, items of their
/// own. What a part finds is a state: an LSE and an output of each of its rows, [batch, head, part,
/// row of the launch]. Where heads are packed (pack.cuh), rows and heads are those of packed
/// queries.
struct SplitTile {
  std::int32_t row, rows;
  std::uint64_t there;  ///< bit n: part n has steps
};
struct Parts {
  std::int32_t most = 1;
  std::int32_t rows = 0;       ///< of the launch
  std::int32_t tile_rows = 0;  ///< of a query tile, at most
  std::int32_t group = 1;      ///< query heads that are packed; 1: they are not
  /// Part n is the steps that begin at positions [n * keys, (n + 1) * keys), the last one those
  /// behind it too. 0: parts are equal shares of their query tile's steps.
  std::int64_t keys = 0;
  SplitTile* tiles = nullptr;  ///< which the schedule kernel fills; null: nothing is split
  float* lse = nullptr;
  float* state = nullptr;
  // Packed:
  std::uint16_t* q = nullptr;
  Tile* key_tiles = nullptr;
  KeyInterval* intervals = nullptr;
};
/// No part of a query tile that has several is shorter, but for what a mask or the end of the keys
/// leaves of one of fixed positions.
inline constexpr int kLeastSteps = 4;

/// Bytes of workspace for `count` query tiles, or fewer for key tiles: the counter and the tiles.
constexpr std::int64_t kCounterBytes = 64;
static_assert(sizeof(Kept) <= kCounterBytes);
constexpr std::int64_t schedule_bytes(std::int64_t count) {
  return kCounterBytes + count * static_cast<std::int64_t>(sizeof(QueryTile));
}

}  // namespace annulus::attn::sm90
