#pragma once

#include "attention/kernels/sm90/shared.cuh"

#include <cstdint>
#include <limits>

// The loader: one thread that draws items, says which keys meet them, waits for their segments'
// counters and has the copy engine bring K and V. Steps run on from item to item. V of a step is
// asked for after K of the next, which consumers need first; where they keep K for long
// (Tuning::late_maxima), before it.
namespace annulus::attn::sm90 {

template <int kDim, int kDimV, Tuning kTuning>
struct Loader {
  using Memory = Shared<kDim, kDimV, kTuning>;
  /// With so few steps left of what is said, the next item is said. Of short items so many at most,
  /// or the loader would wait for output that waits for its next K.
  static constexpr int kLead = 8;
  static constexpr int kMostSaid = Memory::kItems - 3;
  static constexpr int kEndless = std::numeric_limits<int>::max();

  const cuda::Geometry& g;
  const Maps& maps;
  const Schedule& schedule;
  Memory& shared;
  int step = 0;            ///< the next
  int drawn = 0;           ///< the item to be said next, from a step before that on
  std::uint32_t seen = 0;  ///< what that segment's counter held
  bool held = false;       ///< V of the last step is not asked for yet

  __device__ __forceinline__ Loader(const cuda::Geometry& geometry, const Maps& tensor_maps,
                                    const Schedule& order, Memory& memory)
      : g(geometry), maps(tensor_maps), schedule(order), shared(memory) {}

  /// Whole boxes: what of the last lies behind the elements becomes 0, and counts.
  template <int kElements>
  __device__ __forceinline__ void copy(const CUtensorMap& map, unsigned char* to,
                                       std::uint64_t* barrier, int first, int head, int of) const {
    constexpr int kBlocks = kBlocksOf<kElements>;
    arrive_expecting(barrier, kBlocks * kTuning.tile_keys * kRowBytes);
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
      copy_box(shared_address(to) + block * kTuning.tile_keys * kRowBytes, map, barrier,
               block * kBlockWidth, first, head, of);
    }
  }

  __device__ __forceinline__ void load_values() {
    if (!held) return;
    held = false;
    const Place<Memory::kStages> at(step - 1);
    wait(&shared.v_empty[at.index], at.empty);
    const Step& of = shared.steps[(step - 1) % Memory::kSteps];
    copy<kDimV>(maps.keys[of.source].v, shared.v[at.index], &shared.v_full[at.index], of.token,
                of.kv_head, of.batch);
  }

  __device__ __forceinline__ bool aborted() const {
    return g.abort != nullptr && load_acquire_system(g.abort) != 0;
  }

  /// Consumers have no K left that is not taken.
  __device__ __forceinline__ bool is_dry() const {
    const Place<Memory::kStages> last(step + Memory::kStages - 1);
    return is_over(&shared.k_empty[last.index], last.empty);
  }

  /// Waits until keys of the tile are there, from number `first` of its segment on. False where the
  /// launch was aborted. What came before is on its way when this thread spins.
  __device__ __forceinline__ bool await_keys(const Tile& tile, std::int64_t first, int keys,
                                             int kv_head) {
    const KeySegment& from = g.keys[tile.segment];
    // Segments of a launch that takes what has arrived share one counter: it is not read again.
    if (from.ready != g.keys[shared.segment].ready) seen = 0;
    shared.segment = tile.segment;
    if (from.ready == nullptr || seen >= from.all) return true;
    const std::uint32_t needed = cuda::needed_for(from, kv_head, first, keys);
    if (needed <= seen) return true;
    seen = load_acquire_system(from.ready);
    if (seen < needed) load_values();
    std::uint32_t since = 0;  // when consumers ran dry, if somebody asks; 0: they have not
    while (seen < needed) {
      if (aborted()) return false;
      if (g.waited != nullptr && since == 0 && is_dry()) since = nanoseconds_now();
      pause();
      seen = load_acquire_system(from.ready);
    }
    if (since != 0) atomicAdd(g.waited, nanoseconds_now() - since);
    fence_async_global();  // what the counter stands for is read by the copy engine
    return true;
  }

  __device__ __forceinline__ void say_aborted() {
    const Place<Memory::kStages> at(step);
    wait(&shared.k_empty[at.index], at.empty);
    shared.steps[step % Memory::kSteps].keys = kAborted;
    arrive(&shared.k_full[at.index]);
  }

  /// The next step: keys of `tile`, from number `first` of its segment on. Its place is free before
  /// its K's is: the step that was there is further back than any whose V has not been waited for.
  __device__ __forceinline__ void describe(const Tile& tile, std::int64_t first, int keys,
                                           const Item& item) const {
    static_assert(Memory::kStages + 2 <= Memory::kSteps);
    const KeySegment& from = g.keys[tile.segment];
    Step& to = shared.steps[step % Memory::kSteps];
    to.position = from.position + first * from.stride;
    to.stride = from.stride;
    to.token = static_cast<int>(from.token) + static_cast<int>(first);
    to.keys = keys;
    to.rows = tile.rows;
    to.full = tile.full ? 1 : 0;
    to.masked = !tile.full || keys < kTuning.tile_keys || tile.rows < item.tile.rows ? 1 : 0;
    to.kv_head = item.kv_head;
    to.batch = item.batch;
    to.source = from.source;
    shared.pairs += static_cast<std::int64_t>(tile.rows) * keys;
  }

  __device__ __forceinline__ void load_keys() const {
    const Place<Memory::kStages> at(step);
    wait(&shared.k_empty[at.index], at.empty);
    const Step& of = shared.steps[step % Memory::kSteps];
    copy<kDim>(maps.keys[of.source].k, shared.k[at.index], &shared.k_full[at.index], of.token,
               of.kv_head, of.batch);
  }

  /// Steps of an item.
  __device__ __forceinline__ bool walk(const Item& item) {
    int left = item.tile.steps;
    int at = item.tile.skip;
    for (int i = item.tile.begin; left > 0; ++i, at = 0) {
      const Tile& tile = g.tiles[i];
      for (; at < tile.keys && left > 0; at += kTuning.tile_keys, --left) {
        const int keys = min(kTuning.tile_keys, tile.keys - at);
        if (!await_keys(tile, tile.key + at, keys, item.kv_head)) return false;
        describe(tile, tile.key + at, keys, item);
        if constexpr (kTuning.late_maxima) load_values();
        load_keys();
        load_values();
        held = true;
        look_ahead();
        ++step;
      }
    }
    return true;
  }

  /// Draws the next item, and a step later says it. Late, for who draws early takes long items that
  /// others, who are through by then, could have begun; but in time for its queries to come, and so
  /// that no copy waits for what is drawn.
  __device__ __forceinline__ void look_ahead() {
    if (shared.said_steps - step <= kLead) {
      if (shared.said == shared.walked + kMostSaid) return;
      publish(shared.said + 1, drawn);
    }
    if (shared.said_steps - step <= kLead + 1) drawn = draw();
  }

  /// Item n of this block is `index` of all; where it is none, there is no end of its steps.
  __device__ __forceinline__ void publish(int n, int index) {
    const Place<Memory::kItems> at(n);
    wait(&shared.item_empty[at.index], at.empty);
    Item& item = shared.items[at.index];
    item = item_of(g, schedule, index);
    const int steps = item.tile.steps;
    shared.said_steps = steps == 0 ? kEndless : shared.said_steps + steps;
    shared.said = n;
    arrive(&shared.item_full[at.index]);
  }

  __device__ __forceinline__ int draw() const {
    return static_cast<int>(gridDim.x) + atomicAdd(schedule.drawn, 1);
  }

  /// Whoever waits for an item that is not said yet when the launch is aborted is told of none.
  __device__ __forceinline__ void say_no_more() {
#pragma unroll 1
    while (shared.said < shared.walked + 2) publish(shared.said + 1, schedule.all);
  }

  __device__ __forceinline__ void run() {
    prefetch_map(maps.keys[0].k);
    prefetch_map(maps.keys[0].v);
    shared.pairs = 0;
    shared.segment = 0;
    shared.said_steps = 0;
    await_kernel_before();  // the schedule is its work; consumers wait for items
    publish(0, static_cast<int>(blockIdx.x));
    if (shared.said_steps <= kLead) drawn = draw();
    for (shared.walked = 0;; ++shared.walked) {
      const Item& item = shared.items[shared.walked % Memory::kItems];
      if (item.tile.begin == item.tile.end) break;
      if (!walk(item)) {
        say_no_more();
        say_aborted();
        break;
      }
    }
    load_values();
    if (g.waited != nullptr) atomicAdd(g.waited + 1, 1ULL);
    const auto flops = static_cast<unsigned long long>(2 * shared.pairs * (kDim + kDimV));
    if (schedule.kept != nullptr) {
      leave(*schedule.kept, flops);
    } else if (g.flops != nullptr) {
      atomicAdd(g.flops, flops);
    }
  }

  /// Nobody draws any more when the last block comes here.
  __device__ __forceinline__ void leave(Kept& kept, unsigned long long flops) const {
    atomicAdd(&kept.flops, flops);
    fence_device();
    if (atomicAdd(&kept.left, 1U) + 1 < gridDim.x) return;
    fence_device();
    const unsigned long long all = atomicAdd(&kept.flops, 0ULL);
    if (g.flops != nullptr) *g.flops = (schedule.flops_assign ? 0 : *g.flops) + all;
    kept = {};
  }
};

}  // namespace annulus::attn::sm90
