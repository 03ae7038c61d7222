#pragma once

#include "attention/kernels/cuda/device/query_steps.cuh"
#include "attention/kernels/cuda/device/tiles.cuh"

#include <cstdint>

// How blocks walk tile lists, a step at a time. Walkers live in shared memory and belong to one
// thread, which plans steps ahead of its block: what it looks up is a chain of loads that nobody
// shall wait for.
namespace annulus::attn::cuda {

/// Up to kKeys keys of one tile.
struct KeyStep {
  std::int64_t token = 0;  ///< of the first key
  int tile = 0;            ///< in tiles
  int offset = 0;          ///< of the first key within the tile
  int keys = 0;            ///< 0: past the last step
  bool masked = false;     ///< some row of the block does not see some of kKeys keys
};

/// Of a block that holds a query tile of `rows` rows: its tiles' keys.
template <int kKeys>
struct KeyStepWalker {
  int tile, offset;  ///< of the next step
  int ready;         ///< segment that is known to be there; -1: none

  /// Waits for the segment's flag; false, and no step, where that was aborted.
  __device__ bool plan(const Geometry& g, int end, int rows, KeyStep& to) {
    KeyStep step;
    to = step;
    if (tile < end) {
      const Tile current = g.tiles[tile];
      const KeySegment& segment = g.keys[current.segment];
      if (current.segment != ready) {
        if (segment.ready != nullptr && !await_flag(g, segment.ready)) return false;
        ready = current.segment;
      }
      step.token = segment.token + current.key + offset;
      step.tile = tile;
      step.offset = offset;
      step.keys = min(kKeys, current.keys - offset);
      step.masked = !current.full || step.keys < kKeys || current.rows < rows;
      offset += kKeys;
      if (offset >= current.keys) {
        offset = 0;
        ++tile;
      }
    }
    to = step;
    return true;
  }
};

}  // namespace annulus::attn::cuda
