#pragma once

#include "attention/kernels/cuda/device/places.cuh"

#include <cstdint>
#include <type_traits>

// How the backward's loader walks the query rows that see a key tile, as cuda::StepWalker does; but
// all lanes of a warp do it alike, where the walk stands is read from shared memory at once, and
// of a tile or query segment that the walk stays in nothing is asked of memory again: a warp that
// waits for each of these reads takes as long as the consumers' products (docs/notes/08).
namespace annulus::attn::sm90 {

/// Where the walk stands, and what memory says of that place. Packed where a block fills its shared
/// memory (head dim 192); elsewhere the threads that read it have no register to take it apart in.
template <bool kPacked>
struct RowWalk {
  using Short = std::conditional_t<kPacked, std::uint16_t, std::int32_t>;
  using Small = std::conditional_t<kPacked, std::uint8_t, std::uint16_t>;
  /// Of `late`: all are there; one has to ask; those of the next step are there.
  static constexpr unsigned kThere = 0, kUnknown = 1, kAwaited = 3;

  std::int32_t tile, first;  ///< of the next step: in tiles_by_key; row within the tile
  Short head, last_head;     ///< over heads [head, last_head)
  std::int32_t begin, end;   ///< of the key tile's tiles
  std::int32_t row, rows;    ///< of the tile
  Small keys;                ///< the same
  Small full : 1;            ///< no pair of it is masked
  Small late : 2;            ///< what is known of the query segment's rows
  Short batch;
  std::int32_t segment, segment_end;  ///< rows of the query segment
  std::int32_t shift;                 ///< from its rows to their tokens

  /// Reads the tile.
  __device__ __forceinline__ void enter(const cuda::Geometry& g) {
    const Tile& at = g.tiles_by_key[tile];
    row = at.row;
    rows = at.rows;
    keys = static_cast<Small>(at.keys);
    full = at.full ? 1 : 0;
  }

  /// To the next tile, or the first one and the next head.
  __device__ __forceinline__ void leave_tile(const cuda::Geometry& g) {
    first = 0;
    if (++tile == end) {
      tile = begin;
      ++head;
    }
    enter(g);
  }

  /// Reads the segment of launch row `of`. Rows of none have token 0, and end with the tile.
  __device__ __forceinline__ void find_segment(const cuda::Geometry& g, int of) {
    segment = of;
    segment_end = row + rows;
    shift = -of;
    late = kThere;
    for (int i = 0; i < g.query_count; ++i) {
      const QuerySegment& from = g.queries[i];
      if (of < from.row || of >= from.row + from.count) continue;
      segment = static_cast<std::int32_t>(from.row);
      segment_end = static_cast<std::int32_t>(from.row + from.count);
      shift = static_cast<std::int32_t>(from.token - from.row);
      late = from.ready != nullptr ? kUnknown : kThere;
      return;
    }
  }

  /// Where the walk stands it is in the segment that `found` has found.
  __device__ __forceinline__ void stay_in(const RowWalk& found) {
    segment = found.segment;
    segment_end = found.segment_end;
    shift = found.shift;
    late = found.late;
  }
};

/// Up to kRows query rows of one tile, head and query segment.
struct RowStep {
  std::int32_t tile, head, batch;
  std::int32_t row, token;       ///< of the first; `row` of the launch
  std::int32_t part, tile_rows;  ///< of the tile, kRows rows each; all its rows
  std::int16_t rows, keys;
  bool full;  ///< no pair of the tile is masked
  bool last;  ///< of its part
  bool ends;  ///< the walk
};

/// The next step, and the walk goes on to the one behind it.
template <int kRows, bool kPacked>
__device__ __forceinline__ RowStep step_over(const cuda::Geometry& g, RowWalk<kPacked>& walk) {
  RowStep now;
  now.tile = walk.tile;
  now.head = walk.head;
  now.batch = walk.batch;
  now.keys = static_cast<std::int16_t>(walk.keys);
  now.full = walk.full != 0;
  now.row = walk.row + walk.first;
  now.part = walk.first / kRows;
  now.tile_rows = walk.rows;
  if (now.row < walk.segment || now.row >= walk.segment_end) walk.find_segment(g, now.row);
  now.token = now.row + walk.shift;
  const int part_end = min((now.part + 1) * kRows, walk.rows);
  const int rows = min(part_end - walk.first, walk.segment_end - now.row);
  now.rows = static_cast<std::int16_t>(rows);
  walk.first += rows;
  now.last = walk.first == part_end;
  if (walk.first == walk.rows) walk.leave_tile(g);
  now.ends = walk.head >= walk.last_head;
  return now;
}

}  // namespace annulus::attn::sm90
