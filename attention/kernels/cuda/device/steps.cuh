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
  int source = 0;          ///< of K and V
  bool masked = false;     ///< some row of the block does not see some of kKeys keys
};

/// Of a block that holds a query tile of `rows` rows: its tiles' keys.
template <int kKeys>
struct KeyStepWalker {
  int tile, offset;    ///< of the next step
  int kv_head;         ///< of the block
  int segment;         ///< of the last step; -1: none
  std::uint32_t seen;  ///< what that segment's counter held

  /// Waits until the step's keys are there; false, and no step, where that was aborted.
  __device__ bool plan(const Geometry& g, int end, int rows, KeyStep& to) {
    KeyStep step;
    to = step;
    if (tile < end) {
      const Tile current = g.tiles[tile];
      const KeySegment& from = g.keys[current.segment];
      step.token = from.token + current.key + offset;
      step.source = from.source;
      step.tile = tile;
      step.offset = offset;
      step.keys = min(kKeys, current.keys - offset);
      if (!await_keys(g, current.segment, from, current.key + offset, step.keys)) {
        to = KeyStep();
        return false;
      }
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

 private:
  __device__ bool await_keys(const Geometry& g, int index, const KeySegment& from, std::int64_t key,
                             int keys) {
    if (index != segment) seen = 0;
    segment = index;
    if (from.ready == nullptr || seen >= from.all) return true;
    const std::uint32_t needed = needed_for(from, kv_head, key, keys);
    return needed <= seen || await_count(g, from.ready, needed, seen);
  }
};

}  // namespace annulus::attn::cuda
