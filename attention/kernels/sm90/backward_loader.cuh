#pragma once

#include "attention/kernels/cuda/device/query_steps.cuh"
#include "attention/kernels/sm90/backward_shared.cuh"

#include <cstdint>

// The backward's loader: one warp that draws items, waits for their segments' flags and has the copy
// engine bring K and V, and Q and dO of the rows that see them; it brings the rows' numbers and masks
// itself. All of it runs ahead of the consumers by the stages that there are.
namespace annulus::attn::sm90 {

template <int kDim, bool kOrdered>
struct QueryLoader {
  using Memory = BackwardShared<kDim>;
  static constexpr int kRows = Memory::kRows;
  static constexpr int kLaneRows = kRows / 32;

  const cuda::Geometry& g;
  const BackwardParams& p;
  const BackwardMaps& maps;
  const KeySchedule& schedule;
  int* turns;
  Memory& shared;
  int lane;
  int step = 0;  ///< the next
  std::int64_t pairs = 0;

  __device__ __forceinline__ QueryLoader(const cuda::Geometry& geometry,
                                         const BackwardParams& params, const BackwardMaps& all_maps,
                                         const KeySchedule& order, int* counters, Memory& memory)
      : g(geometry),
        p(params),
        maps(all_maps),
        schedule(order),
        turns(counters),
        shared(memory),
        lane(static_cast<int>(threadIdx.x) % 32) {}

  /// One lane: kDim columns of `rows` tokens.
  template <int kHeight>
  __device__ __forceinline__ static void copy(const CUtensorMap& map, unsigned char* to,
                                              std::uint64_t* barrier, int token, int head,
                                              int batch) {
    arrive_expecting(barrier, kHeight * kDim * 2);
#pragma unroll
    for (int block = 0; block < kDim / kBlockWidth; ++block) {
      copy_box(shared_address(to) + block * kHeight * kRowBytes, map, barrier, block * kBlockWidth,
               token, head, batch);
    }
  }

  /// One lane. False where the launch was aborted.
  __device__ __forceinline__ bool await_flag(const std::uint32_t* flag) const {
    while (load_acquire_system(flag) == 0) {
      if (g.abort != nullptr && load_acquire_system(g.abort) != 0) return false;
      pause();
    }
    fence_async_global();  // what the flag stands for is read by the copy engine
    return true;
  }

  /// K and V of item n. False where the launch was aborted.
  __device__ __forceinline__ bool load_keys(const KeyItem& item, int kv_head, int n) {
    const Tile& tile = g.tiles_by_key[item.tile.begin];
    const KeySegment& segment = g.keys[tile.segment];
    int good = 1;
    if (lane == 0) {
      if (segment.ready != nullptr) good = await_flag(segment.ready) ? 1 : 0;
      const Place<1> at(n);
      wait(&shared.keys_empty, at.empty);
      if (*static_cast<volatile std::uint32_t*>(&shared.aborted) != 0) good = 0;
      if (good != 0) {
        const std::int64_t token = segment.token + tile.key;
        KeyRows& to = shared.items[n & 1];
        to.dk = cuda::f32_row(p.dk, item.batch, token, kv_head);
        to.dv = cuda::f32_row(p.dv, item.batch, token, kv_head);
        to.keys = item.tile.keys;
        const auto first = static_cast<int>(token);
        copy<kTileKeys>(maps.k, shared.k, &shared.k_full, first, kv_head, item.batch);
        copy<kTileKeys>(maps.v, shared.v, &shared.v_full, first, kv_head, item.batch);
      }
    }
    return __shfl_sync(0xffffffffU, good, 0) != 0;
  }

  /// One lane.
  __device__ __forceinline__ void say(const cuda::Step& from, int batch, bool masked, bool last,
                                      QueryStep& to) const {
    to.dq = cuda::f32_row(p.dq, batch, from.token, from.head);
    to.rows = from.rows;
    to.masked = masked ? 1 : 0;
    to.last = last ? 1 : 0;
    if constexpr (kOrdered) {
      const TilePlace place = g.places[from.tile];
      to.counter = turns + cuda::turn_index(g, batch, from.head, place.row_tile, from.part);
      to.turn = place.turn;
      // Halves that the tile does not reach are passed on with its last part.
      const bool ends = (from.part + 1) * kRows >= g.tiles_by_key[from.tile].rows;
      to.passes = !from.last ? 0 : ends ? kTileRows / kRows - from.part : 1;
    }
  }

  /// Which keys rows see, of a masked step.
  __device__ __forceinline__ void find_seen(const cuda::Step& now, int stage) const {
    const Tile& tile = g.tiles_by_key[now.tile];
    const KeySegment& segment = g.keys[tile.segment];
    const std::int64_t first = segment.position + tile.key * segment.stride;
#pragma unroll 1
    for (int r = lane; r < kRows; r += 32) {
      cuda::VisibleKeys visible = cuda::all_keys(r < now.rows ? now.keys : 0);
      if (!now.full && r < now.rows) {
        visible = cuda::visible_keys(g, now.row + r, first, segment.stride, now.keys);
      }
#pragma unroll
      for (int w = 0; w < kConsumerWarps; w += 2) {
        const std::uint32_t bits = visible.bits(16 * w);
        shared.seen[stage][w][r] = static_cast<std::uint16_t>(bits);
        shared.seen[stage][w + 1][r] = static_cast<std::uint16_t>(bits >> 16);
      }
    }
  }

  __device__ __forceinline__ void load_step(const cuda::Step& now, int batch, bool last) {
    const float* lse = cuda::f32_row(p.lse, batch, now.token, now.head);
    const float* delta = cuda::f32_row(p.delta, batch, now.token, now.head);
    float row_lse[kLaneRows], row_delta[kLaneRows];
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) {
      const int r = lane + 32 * i;
      row_lse[i] = r < now.rows ? lse[r * p.lse.token_stride] : -cuda::kInfinity;
      row_delta[i] = r < now.rows ? delta[r * p.delta.token_stride] : 0.0F;
    }
    const bool masked = !now.full || now.rows < kRows || now.keys < kTileKeys;
    const Place<Memory::kStages> at(step);
    wait(&shared.empty[at.index], at.empty);
    if (lane == 0) {
      say(now, batch, masked, last, shared.steps[at.index]);
      const auto token = static_cast<int>(now.token);
      copy<kRows>(maps.q, shared.q[at.index], &shared.q_full[at.index], token, now.head, batch);
      copy<kRows>(maps.dout, shared.dout[at.index], &shared.dout_full[at.index], token, now.head,
                  batch);
    }
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) {
      const bool seen = row_lse[i] != -cuda::kInfinity;  // P of a row that saw no key is 0
      shared.lse[at.index][lane + 32 * i] = seen ? row_lse[i] * cuda::kLog2E : cuda::kInfinity;
      shared.delta[at.index][lane + 32 * i] = seen ? row_delta[i] : 0.0F;
    }
    if (masked) find_seen(now, at.index);
    __syncwarp();
    if (lane == 0) arrive(&shared.q_full[at.index]);
    ++step;
    pairs += static_cast<std::int64_t>(now.rows) * now.keys;
  }

  /// All heads of the group, and of each the rows that see the key tile.
  __device__ __forceinline__ void walk(const KeyItem& item, int kv_head) {
    const cuda::HeadRange heads = cuda::heads_of(g, kv_head);
    cuda::StepWalker<kRows> walker{heads.first, item.tile.begin, 0};
    cuda::Step now;
    while (walker.head < heads.last) {
      walker.plan(g, heads, item.tile.begin, item.tile.end, now);
      load_step(now, item.batch, walker.head >= heads.last);
    }
  }

  __device__ __forceinline__ int draw() const {
    int drawn = 0;
    if (lane == 0) drawn = static_cast<int>(gridDim.x) + atomicAdd(schedule.drawn, 1);
    return __shfl_sync(0xffffffffU, drawn, 0);
  }

  /// A step without rows: there are no more.
  __device__ __forceinline__ void say_end() {
    if (lane != 0) return;
    const Place<Memory::kStages> at(step);
    wait(&shared.empty[at.index], at.empty);
    shared.steps[at.index].rows = 0;
    arrive(&shared.q_full[at.index]);
    arrive(&shared.q_full[at.index]);
  }

  __device__ __forceinline__ void run() {
    int index = static_cast<int>(blockIdx.x);
    for (int n = 0; index < schedule.all; ++n) {
      const KeyItem item = item_of(schedule, g.key_tile_count, g.kv_heads, index);
      const int kv_head = item.head + g.first_kv_head;
      if (!load_keys(item, kv_head, n)) break;
      walk(item, kv_head);
      index = draw();
    }
    say_end();
    if (lane == 0 && g.flops != nullptr) {
      atomicAdd(g.flops, static_cast<unsigned long long>(2 * pairs * 5 * kDim));
    }
  }
};

}  // namespace annulus::attn::sm90
