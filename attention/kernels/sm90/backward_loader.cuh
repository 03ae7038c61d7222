#pragma once

#include "attention/kernels/sm90/backward_shared.cuh"

#include <cstdint>

// The backward's loader: one warp that draws items, waits for the counters of keys and rows and has
// the copy engine bring K and V, and Q and dO of the rows that see them; it brings the rows'
// numbers and masks itself. All of it runs ahead of the consumers by the stages that there are.
namespace annulus::attn::sm90 {

template <typename Memory, bool kOrdered>
struct QueryLoader {
  static constexpr int kRows = Memory::kRows;
  static constexpr int kKeys = Memory::kKeys;
  static constexpr int kLaneRows = kRows / 32;
  static constexpr bool kLateDout = Memory::kLateDout;
  using Across = typename Memory::Across;
  using Turn = Place<Memory::kStages>;
  using Walk = typename Memory::Walk;
  /// Up to head dim 128 a thread has registers for a step; beside wide consumers it lies in memory.
  static constexpr bool kRoomy = !Memory::kTurned && !Memory::kWide;

  const cuda::Geometry& g;
  const BackwardParams& p;
  const BackwardMaps& maps;
  const KeySchedule& schedule;
  int* turns;
  Memory& shared;
  int step = 0;  ///< the next

  __device__ __forceinline__ QueryLoader(const cuda::Geometry& geometry,
                                         const BackwardParams& params, const BackwardMaps& all_maps,
                                         const KeySchedule& order, int* counters, Memory& memory)
      : g(geometry), p(params), maps(all_maps), schedule(order), turns(counters), shared(memory) {}

  /// Above 128 found again wherever it is needed, for beside wide consumers there are few
  /// registers; up to 128 that made the backward some 12 % slower.
  __device__ __forceinline__ static int lane() {
    if constexpr (Memory::kWide) return thread_again() % 32;
    return static_cast<int>(threadIdx.x) % 32;
  }

  /// One lane: all columns of kHeight tokens, by blocks; what lies beside the tensor becomes 0.
  template <int kHeight, typename Across>
  __device__ __forceinline__ static void copy(const CUtensorMap& map, unsigned char* to,
                                              std::uint64_t* barrier, int token, int head,
                                              int batch) {
    arrive_expecting(barrier, kHeight * Across::kBlocks * kRowBytes);
#pragma unroll
    for (int block = 0; block < Across::kBlocks; ++block) {
      copy_box(shared_address(to) + block * kHeight * kRowBytes, map, barrier, Across::first(block),
               token, head, batch);
    }
  }

  /// One lane: waits until the tile's keys are there, for the block's n-th item. False where the
  /// launch was aborted.
  __device__ __forceinline__ bool await_keys(const KeySegment& segment, const KeyItem& item,
                                             int kv_head, int n) const {
    if (segment.ready == nullptr) return true;
    const std::int64_t key = g.tiles_by_key[item.tile.begin].key;
    const std::uint32_t needed = cuda::needed_for(segment, kv_head, key, item.tile.keys);
    std::uint32_t since = 0;  // when consumers were done with the item before, if somebody asks
    while (load_acquire_system(segment.ready) < needed) {
      if (g.abort != nullptr && load_acquire_system(g.abort) != 0) return false;
      if (g.waited != nullptr && since == 0 && is_over(&shared.keys_empty, Place<1>(n).empty)) {
        since = nanoseconds_now();
      }
      pause();
    }
    if (since != 0) atomicAdd(g.waited, nanoseconds_now() - since);
    fence_async_global();  // what the counter stands for is read by the copy engine
    return true;
  }

  /// Consumers are done with all steps so far.
  __device__ __forceinline__ bool is_dry() const {
    const Turn last(step + Memory::kStages - 1);
    return is_over(&shared.empty[last.index], last.empty);
  }

  /// All lanes: a counter has not come far enough for one of them.
  __device__ __forceinline__ static bool lacks(std::uint32_t seen, std::uint32_t needed) {
    return __any_sync(0xffffffffU, seen < needed) != 0;
  }

  /// All lanes, for a loop of one would cost the others registers: wait until rows of a head are
  /// there, which are of one query segment, and note in the walk where all of that are. False where
  /// the launch was aborted: rows are taken as they are then, their step ends its item, and another
  /// is not begun (load_keys).
  __device__ __forceinline__ bool await_rows(int head, int row, int rows) const {
    int index = 0;
    while (row < g.queries[index].row || row >= g.queries[index].row + g.queries[index].count) {
      ++index;
    }
    const QuerySegment& from = g.queries[index];
    const std::uint32_t needed = cuda::needed_for(from, head, row - from.row, rows);
    // Segments may share a counter: it is not read again.
    std::uint32_t seen = from.ready == g.queries[shared.counted].ready ? shared.held : 0;
    std::uint32_t since = 0;  // when consumers had no step left, if somebody asks
    bool good = true;
    while (good && lacks(seen, needed)) {
      seen = load_acquire_system(from.ready);
      if (!lacks(seen, needed)) break;
      good = !__any_sync(0xffffffffU, g.abort != nullptr && load_acquire_system(g.abort) != 0);
      if (g.waited != nullptr && since == 0 && is_dry()) since = nanoseconds_now();
      if (good) pause();
    }
    fence_async_global();  // what the counter stands for is read by the copy engine
    if (lane() == 0) {
      if (since != 0) atomicAdd(g.waited, nanoseconds_now() - since);
      shared.counted = index;
      shared.held = seen;
      if (seen >= from.all) shared.walk.late = Walk::kThere;
      if (!good) *static_cast<volatile std::uint16_t*>(&shared.aborted) = 1;
    }
    __syncwarp();
    return good;
  }

  /// One lane.
  __device__ __forceinline__ void begin_walk(const KeyItem& item,
                                             const cuda::HeadRange& heads) const {
    Walk walk{};
    walk.tile = walk.begin = item.tile.begin;
    walk.end = item.tile.end;
    walk.head = static_cast<typename Walk::Short>(heads.first);
    walk.last_head = static_cast<typename Walk::Short>(heads.last);
    walk.batch = static_cast<typename Walk::Short>(item.batch);
    walk.enter(g);
    shared.walk = walk;
  }

  /// One lane: the item that was drawn, with K and V. False where the launch was aborted.
  __device__ __forceinline__ bool load_keys() const {
    const KeyItem item = item_of(schedule, g.key_tile_count, g.kv_heads, shared.index);
    const int n = shared.taken++;
    const int kv_head = item.head + g.first_kv_head;
    begin_walk(item, cuda::heads_of(g, kv_head));
    const Tile& tile = g.tiles_by_key[item.tile.begin];
    const KeySegment& segment = g.keys[tile.segment];
    if (!await_keys(segment, item, kv_head, n)) return false;
    const Place<1> at(n);
    wait(&shared.keys_empty, at.empty);
    if (*static_cast<volatile std::uint16_t*>(&shared.aborted) != 0) return false;
    const std::int64_t token = segment.token + tile.key;
    const KeyMaps& of = shared.key_maps[segment.source];
    KeyRows& to = shared.items[n & 1];
    to.dk = cuda::index_of(p.dk, item.batch, token, kv_head);
    to.dv = cuda::index_of(p.dv, item.batch, token, kv_head);
    to.keys = item.tile.keys;
    to.kv_head = kv_head;
    const auto first = static_cast<int>(token);
    using V = typename Memory::AcrossV;
    copy<kKeys, Across>(of.k, shared.k, &shared.k_full, first, kv_head, item.batch);
    copy<kKeys, V>(of.v, shared.v, &shared.v_full, first, kv_head, item.batch);
    return true;
  }

  __device__ __forceinline__ static bool is_masked(const RowStep& now) {
    return !now.full || now.rows < kRows || now.keys < kKeys;
  }

  /// One lane.
  __device__ __forceinline__ void say(const RowStep& from, QueryStep& to) const {
    to.rows = from.rows;
    to.token = from.token;
    to.head = from.head;
    to.batch = from.batch;
    to.masked = is_masked(from) ? 1 : 0;
    to.last = from.ends ? 1 : 0;
    if constexpr (kOrdered) {
      const TilePlace place = g.places[from.tile];
      to.counter = turns + cuda::turn_index(g, from.batch, from.head, place.row_tile, from.part);
      to.turn = place.turn;
      // Halves that the tile does not reach are passed on with its last part.
      const bool ends = (from.part + 1) * kRows >= from.tile_rows;
      to.passes = static_cast<std::int16_t>(!from.last ? 0
                                            : ends     ? kTileRows / kRows - from.part
                                                       : 1);
    }
  }

  /// Which keys rows see, of a masked step.
  __device__ __forceinline__ void find_seen(const RowStep& now, int stage) const {
    const Tile& tile = g.tiles_by_key[now.tile];
    const KeySegment& segment = g.keys[tile.segment];
    const std::int64_t first = segment.position + tile.key * segment.stride;
#pragma unroll 1
    for (int r = lane(); r < kRows; r += 32) {
      cuda::VisibleKeys visible = cuda::all_keys(r < now.rows ? now.keys : 0);
      if (!now.full && r < now.rows) {
        visible = cuda::visible_keys(g, now.row + r, first, segment.stride, now.keys);
      }
#pragma unroll
      for (int w = 0; w < kKeys / 16; w += 2) {
        const std::uint32_t bits = visible.bits(16 * w);
        shared.seen[stage][w][r] = static_cast<std::uint16_t>(bits);
        shared.seen[stage][w + 1][r] = static_cast<std::uint16_t>(bits >> 16);
      }
    }
  }

  __device__ __forceinline__ void start_copies(const RowStep& now, const Turn& at) const {
    copy<kRows, Across>(maps.q, shared.q[at.index], &shared.q_full[at.index], now.token, now.head,
                        now.batch);
    if constexpr (!kLateDout) {
      copy<kRows, typename Memory::AcrossV>(maps.dout, shared.dout[at.index],
                                            &shared.q_full[at.index], now.token, now.head,
                                            now.batch);
    }
  }
  /// One lane, once the place of dO is free.
  __device__ __forceinline__ void start_late_dout(const RowStep& now) const {
    const Place<Memory::kDoutStages> at(step);
    wait(&shared.dout_empty[at.index], at.empty);
    copy<kRows, typename Memory::AcrossV>(maps.dout, shared.dout[at.index],
                                          &shared.dout_full[at.index], now.token, now.head,
                                          now.batch);
  }

  /// Of the lane's rows; `missing` for those that the step lacks.
  __device__ __forceinline__ void find_numbers(const Input& operand, const RowStep& now,
                                               float missing, float (&numbers)[kLaneRows]) const {
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) {
      const int r = lane() + 32 * i;
      numbers[i] =
          r < now.rows ? *cuda::f32_row(operand, now.batch, now.token + r, now.head) : missing;
    }
  }

  /// P of a row that saw no key is 0.
  __device__ __forceinline__ void keep_numbers(const float (&lse)[kLaneRows],
                                               const float (&delta)[kLaneRows], int stage) const {
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) {
      const bool seen = lse[i] != -cuda::kInfinity;
      const int row = lane() + 32 * i;
      const int at = Memory::kTurned ? row : place_of_number<kRows>(row);
      shared.lse[stage][at] = seen ? lse[i] * cuda::kLog2E : cuda::kInfinity;
      shared.delta[stage][at] = seen ? delta[i] : 0.0F;
    }
  }

  /// The next step: all lanes find it, and one keeps where the walk then stands. False where its
  /// rows have to be awaited first.
  __device__ __forceinline__ bool plan(RowStep& now) const {
    Walk walk = shared.walk;
    now = step_over<kRows>(g, walk);
    __syncwarp();                     // all lanes have read it
    if (walk.late != Walk::kThere) {  // of all lanes alike
      if (walk.late == Walk::kUnknown) {
        if (lane() == 0) shared.walk.stay_in(walk);
        return false;
      }
      const volatile std::uint16_t& aborted = shared.aborted;  // which adders set too
      now.ends = __any_sync(0xffffffffU, now.ends || aborted != 0) != 0;
      walk.late = Walk::kUnknown;  // of the step after this one
    }
    if (lane() == 0) {
      shared.walk = walk;
      shared.pairs += static_cast<std::int64_t>(now.rows) * now.keys;
    }
    return true;
  }

  /// Waits for rows of the step that was not planned, at a place where registers hold nothing else.
  __device__ __forceinline__ void await_next() const {
    __syncwarp();  // one lane has said where the walk stands
    const Walk& walk = shared.walk;
    const int row = walk.row + walk.first;
    const int rows = min(min(kRows, walk.rows - walk.first), walk.segment_end - row);
    if (lane() == 0) shared.walk.late = Walk::kAwaited;
    (void)await_rows(walk.head, row, rows);
  }

  /// The same beside wide consumers: one lane finds it in shared memory.
  __device__ __forceinline__ const RowStep& plan_in_memory() const {
    RowStep& now = shared.planned;
    __syncwarp();  // all lanes have read the one before
    if (lane() == 0) {
      now = step_over<kRows>(g, shared.walk);
      shared.pairs += static_cast<std::int64_t>(now.rows) * now.keys;
    }
    __syncwarp();
    if (shared.walk.late != Walk::kThere && !await_rows(now.head, now.row, now.rows)) {
      if (lane() == 0) now.ends = true;
      __syncwarp();
    }
    return now;
  }

  /// What there are registers for is asked of memory before the place of the step is awaited. Is
  /// there another?
  __device__ __forceinline__ bool load_step(const RowStep& now) {
    float lse[kLaneRows], delta[kLaneRows];
    if constexpr (kRoomy) {
      find_numbers(p.lse, now, -cuda::kInfinity, lse);
      find_numbers(p.delta, now, 0.0F, delta);
    }
    const Turn at(step);
    wait(&shared.empty[at.index], at.empty);
    if (elect_one()) {
      say(now, shared.steps[step % kSaid]);
      start_copies(now, at);
    }
    if constexpr (!kRoomy) {
      find_numbers(p.lse, now, -cuda::kInfinity, lse);
      find_numbers(p.delta, now, 0.0F, delta);
    }
    keep_numbers(lse, delta, at.index);
    if (is_masked(now)) find_seen(now, at.index);
    __syncwarp();
    if (lane() == 0) arrive(&shared.q_full[at.index]);
    if (kLateDout && elect_one()) start_late_dout(now);
    ++step;
    return !now.ends;
  }

  /// All heads of the group, and of each the rows that see the key tile.
  __device__ __forceinline__ void walk() {
    __syncwarp();  // one lane has begun it
    for (bool more = true; more;) {
      if constexpr (kRoomy) {
        RowStep now;
        if (plan(now)) {
          more = load_step(now);
        } else {
          await_next();
        }
      } else {
        more = load_step(plan_in_memory());
      }
    }
  }

  /// One lane.
  __device__ __forceinline__ void draw() const {
    shared.index = shared.blocks + atomicAdd(schedule.drawn, 1);
  }
  /// One lane: the next item, if there is one that is to be computed.
  __device__ __forceinline__ bool next_keys() const {
    return shared.index < schedule.all && load_keys();
  }

  /// A step without rows: there are no more.
  __device__ __forceinline__ void say_end() {
    if (lane() != 0) return;
    const Place<Memory::kStages> at(step);
    wait(&shared.empty[at.index], at.empty);
    shared.steps[step % kSaid].rows = 0;
    for (int i = kLateDout ? 1 : 0; i < 3; ++i) arrive(&shared.q_full[at.index]);
  }

  __device__ __forceinline__ void run() {
    await_kernel_before();  // the schedule and zeroes are its work; all others wait for steps
    if (lane() == 0) {
      shared.pairs = 0;
      shared.key_maps = maps.keys;
      shared.counted = 0;
      shared.held = 0;
      shared.index = static_cast<int>(blockIdx.x);
      shared.taken = 0;
      shared.blocks = static_cast<std::uint16_t>(gridDim.x);
    }
    for (;;) {
      int good = 0;
      if (lane() == 0) good = next_keys() ? 1 : 0;
      if (__shfl_sync(0xffffffffU, good, 0) == 0) break;
      walk();
      if (lane() == 0) draw();
    }
    say_end();
    if (lane() == 0 && g.waited != nullptr) atomicAdd(g.waited + 1, 1ULL);
    if (lane() == 0 && g.flops != nullptr) {
      constexpr int kOfPair = 2 * (3 * Memory::kDim + 2 * Memory::kDimV);
      atomicAdd(g.flops, static_cast<unsigned long long>(shared.pairs * kOfPair));
    }
  }
};

}  // namespace annulus::attn::sm90
