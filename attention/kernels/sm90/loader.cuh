#pragma once

#include "attention/kernels/sm90/shared.cuh"

#include <cstdint>

// The loader: one thread that draws items, says which keys meet them, waits for their segments'
// counters and has the copy engine bring K and V. Steps run on from item to item. V of a step is
// asked for after K of the next, which consumers need first.
namespace annulus::attn::sm90 {

template <int kDim>
struct Loader {
  using Memory = Shared<kDim>;

  const cuda::Geometry& g;
  const Maps& maps;
  const Schedule& schedule;
  Memory& shared;
  int step = 0;                           ///< the next
  int segment = -1;                       ///< of the last step
  std::uint32_t seen = 0;                 ///< what that segment's counter held
  bool held = false;                      ///< V of the last step is not asked for yet
  int token = 0, kv_head = 0, batch = 0;  ///< of what is held
  std::int64_t pairs = 0;

  __device__ __forceinline__ Loader(const cuda::Geometry& geometry, const Maps& tensor_maps,
                                    const Schedule& order, Memory& memory)
      : g(geometry), maps(tensor_maps), schedule(order), shared(memory) {}

  __device__ __forceinline__ void copy(const CUtensorMap& map, unsigned char* to,
                                       std::uint64_t* barrier, int first, int head, int of) const {
    arrive_expecting(barrier, Memory::kKeyBytes);
#pragma unroll
    for (int block = 0; block < kDim / kBlockWidth; ++block) {
      copy_box(shared_address(to) + block * kTileKeys * kRowBytes, map, barrier,
               block * kBlockWidth, first, head, of);
    }
  }

  __device__ __forceinline__ void load_values() {
    if (!held) return;
    held = false;
    const Place<Memory::kStages> at(step - 1);
    wait(&shared.v_empty[at.index], at.empty);
    copy(maps.v, shared.v[at.index], &shared.v_full[at.index], token, kv_head, batch);
  }

  __device__ __forceinline__ bool aborted() const {
    return g.abort != nullptr && load_acquire_system(g.abort) != 0;
  }

  /// Waits until the tile's keys are there. False where the launch was aborted. What came before is
  /// on its way when this thread spins.
  __device__ __forceinline__ bool await_keys(const Tile& tile, const KeySegment& from, int head) {
    if (tile.segment != segment) seen = 0;
    segment = tile.segment;
    if (from.ready == nullptr || seen >= from.all) return true;
    const std::uint32_t needed =
        cuda::needed_for(from, cuda::kv_head_of(g, head), tile.key, tile.keys);
    if (needed <= seen) return true;
    seen = load_acquire_system(from.ready);
    if (seen < needed) load_values();
    while (seen < needed) {
      if (aborted()) return false;
      pause();
      seen = load_acquire_system(from.ready);
    }
    fence_async_global();  // what the counter stands for is read by the copy engine
    return true;
  }

  __device__ __forceinline__ void say_aborted() {
    const Place<Memory::kStages> at(step);
    wait(&shared.k_empty[at.index], at.empty);
    shared.steps[step % Memory::kSteps].keys = kAborted;
    arrive(&shared.k_full[at.index]);
  }

  __device__ __forceinline__ void load_step(const Tile& tile, const KeySegment& from,
                                            const Item& item) {
    const Place<Memory::kStages> at(step);
    wait(&shared.k_empty[at.index], at.empty);
    Step& to = shared.steps[step % Memory::kSteps];
    to.position = from.position + tile.key * from.stride;
    to.stride = from.stride;
    to.keys = tile.keys;
    to.rows = tile.rows;
    to.full = tile.full ? 1 : 0;
    to.masked = !tile.full || tile.keys < kTileKeys || tile.rows < item.tile.rows ? 1 : 0;
    const auto first = static_cast<int>(from.token + tile.key);
    const auto head = static_cast<int>(cuda::kv_head_of(g, item.head));
    copy(maps.k, shared.k[at.index], &shared.k_full[at.index], first, head, item.batch);
    load_values();
    held = true;
    token = first;
    kv_head = head;
    batch = item.batch;
    ++step;
    pairs += static_cast<std::int64_t>(tile.rows) * tile.keys;
  }

  __device__ __forceinline__ bool walk(const Item& item) {
    for (int i = item.tile.begin; i < item.tile.end; ++i) {
      const Tile& tile = g.tiles[i];
      const KeySegment& from = g.keys[tile.segment];
      if (!await_keys(tile, from, item.head)) return false;
      load_step(tile, from, item);
    }
    return true;
  }

  /// Item n of this block is `index` of all.
  __device__ __forceinline__ void publish(int n, int index) {
    const Place<Memory::kItems> at(n);
    wait(&shared.item_empty[at.index], at.empty);
    shared.items[at.index] = item_of(g, schedule, index);
    arrive(&shared.item_full[at.index]);
  }

  __device__ __forceinline__ int draw() const {
    return static_cast<int>(gridDim.x) + atomicAdd(schedule.drawn, 1);
  }

  /// Consumers know an item and the one after it, whose queries they copy ahead.
  __device__ __forceinline__ void run() {
    prefetch_map(maps.k);
    prefetch_map(maps.v);
    int index = static_cast<int>(blockIdx.x);
    publish(0, index);
    for (int n = 0; index < schedule.all; ++n) {
      index = draw();
      publish(n + 1, index);
      if (!walk(shared.items[n % Memory::kItems])) {
        say_aborted();
        break;
      }
    }
    load_values();
    if (g.flops != nullptr) {
      atomicAdd(g.flops, static_cast<unsigned long long>(2 * pairs * (kDim + kDim)));
    }
  }
};

}  // namespace annulus::attn::sm90
