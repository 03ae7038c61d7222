#pragma once

#include "attention/kernels/cuda/device/places.cuh"

#include <cstdint>

// How a block that holds a key tile walks the query rows that see it (steps.cuh has the walk along
// keys). Plain C++, as places.cuh.
namespace annulus::attn::cuda {

/// Up to kRows query rows of one tile and head, all of one query segment.
struct Step {
  std::int64_t token = 0;  ///< of the first row
  int head = 0;
  int tile = 0;  ///< in tiles_by_key
  int part = 0;  ///< of the tile, kRows rows each
  int row = 0;   ///< of the launch
  int rows = 0;  ///< 0: past the last step
  int keys = 0;
  int counted = -1;   ///< its query segment, if that has a counter
  bool full = false;  ///< no pair of the tile is masked
  bool last = false;  ///< of its part
};

/// Of a block that holds a key tile: the query rows that see it, of every head of its group.
template <int kRows>
struct StepWalker {
  int head, tile, first;  ///< of the next step; `first`: row within the tile

  __device__ void plan(const Geometry& g, const HeadRange& heads, int begin, int end, Step& to) {
    Step step;
    if (head < heads.last) {
      const Tile current = g.tiles_by_key[tile];
      step.head = head;
      step.tile = tile;
      step.part = first / kRows;
      step.row = current.row + first;
      const int part_end = min((step.part + 1) * kRows, current.rows);
      step.rows = part_end - first;
      find_token(g, step);
      step.keys = current.keys;
      step.full = current.full;
      first += step.rows;
      step.last = first == part_end;
      if (first == current.rows) {
        first = 0;
        if (++tile == end) {
          tile = begin;
          ++head;
        }
      }
    }
    to = step;
  }

 private:
  /// Also cuts the step where its query segment ends.
  __device__ static void find_token(const Geometry& g, Step& step) {
    for (int i = 0; i < g.query_count; ++i) {
      const QuerySegment& segment = g.queries[i];
      const std::int64_t offset = step.row - segment.row;
      if (offset < 0 || offset >= segment.count) continue;
      step.token = segment.token + offset;
      if (segment.ready != nullptr) step.counted = i;
      if (segment.count - offset < step.rows) step.rows = static_cast<int>(segment.count - offset);
      return;
    }
  }
};

}  // namespace annulus::attn::cuda
