#pragma once

#include "attention/kernels/cuda/device/places.cuh"

#include <cstdint>

// What launch geometry means on the device: flags, turns.
namespace annulus::attn::cuda {

/// Largest row count of the tiles [begin, end), which begin at one row.
__device__ inline int rows_of(const Tile* tiles, int begin, int end) {
  int rows = 0;
  for (int i = begin; i < end; ++i) rows = max(rows, tiles[i].rows);
  return rows;
}

/// What lane `lane` of the warp holds.
__device__ inline VisibleKeys from_lane(const VisibleKeys& mine, int lane) {
  VisibleKeys visible;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    visible.begin[i] = __shfl_sync(0xffffffffU, mine.begin[i], lane);
    visible.end[i] = __shfl_sync(0xffffffffU, mine.end[i], lane);
  }
  return visible;
}

__device__ inline std::uint32_t load_acquire_system(const std::uint32_t* flag) {
  std::uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}

__device__ inline int load_acquire(const int* counter) {
  int value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
  return value;
}

__device__ inline void store_release(int* counter, int value) {
  asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(counter), "r"(value) : "memory");
}

__device__ inline bool aborted(const Geometry& g) {
  return g.abort != nullptr && load_acquire_system(g.abort) != 0;
}

/// One thread: waits until a segment's counter holds `needed`, or more; `seen`: what it held last.
/// False where the launch was aborted.
__device__ inline bool await_count(const Geometry& g, const std::uint32_t* counter,
                                   std::uint32_t needed, std::uint32_t& seen) {
  while ((seen = load_acquire_system(counter)) < needed) {
    if (aborted(g)) return false;
    __nanosleep(100);
  }
  return true;
}

/// One thread: waits for all of a segment that has a counter. False where the launch was aborted.
template <typename Segment>
__device__ inline bool await_all(const Geometry& g, const Segment& segment) {
  std::uint32_t seen = 0;
  return await_count(g, segment.ready, segment.all, seen);
}

/// The whole block: waits for all keys of a segment. False where the launch was aborted.
__device__ inline bool await_segment(const Geometry& g, const KeySegment& segment) {
  if (segment.ready == nullptr) return true;
  bool good = true;
  if (threadIdx.x == 0) good = await_all(g, segment);
  return __syncthreads_and(good) != 0;
}

/// The whole block: waits for keys [key, key + keys) of a head. False where the launch was aborted.
__device__ inline bool await_keys(const Geometry& g, const KeySegment& segment,
                                  std::int64_t kv_head, std::int64_t key, int keys) {
  if (segment.ready == nullptr) return true;
  bool good = true;
  std::uint32_t seen = 0;
  if (threadIdx.x == 0) {
    good = await_count(g, segment.ready, needed_for(segment, kv_head, key, keys), seen);
  }
  return __syncthreads_and(good) != 0;
}

/// One thread: waits for the launch rows [row, row + rows) of a head. False where the launch was
/// aborted.
__device__ inline bool await_rows(const Geometry& g, std::int64_t head, std::int64_t row,
                                  std::int64_t rows) {
  for (int i = 0; i < g.query_count; ++i) {
    const QuerySegment& from = g.queries[i];
    const std::int64_t first = row > from.row ? row - from.row : 0;
    const std::int64_t end =
        row + rows < from.row + from.count ? row + rows - from.row : from.count;
    if (from.ready == nullptr || first >= end) continue;
    const std::uint32_t needed = needed_for(from, head, first, static_cast<int>(end - first));
    std::uint32_t seen = 0;
    if (!await_count(g, from.ready, needed, seen)) return false;
  }
  return true;
}

/// The whole block: the same.
__device__ inline bool await_rows_of_block(const Geometry& g, std::int64_t head, std::int64_t row,
                                           std::int64_t rows) {
  bool good = true;
  if (threadIdx.x == 0) good = await_rows(g, head, row, rows);
  return __syncthreads_and(good) != 0;
}

/// The whole block, which has written dk and dv of a key tile: says so (BackwardParams::done).
__device__ inline void say_done(std::uint32_t* done, std::int64_t kv_head) {
  if (done == nullptr) return;
  __syncthreads();
  if (threadIdx.x != 0) return;
  asm volatile("red.release.sys.global.add.u32 [%0], 1;" ::"l"(done + kv_head) : "memory");
}

/// One thread: waits until it is its turn. False where the launch was aborted.
__device__ inline bool await_turn(const Geometry& g, const int* counter, int turn) {
  for (int spins = 0; load_acquire(counter) != turn; ++spins) {
    if ((spins & 63) == 63 && aborted(g)) return false;
    __nanosleep(20);
  }
  return true;
}

__device__ inline void count_flops(const Geometry& g, std::int64_t flops) {
  if (g.flops != nullptr) atomicAdd(g.flops, static_cast<unsigned long long>(flops));
}

}  // namespace annulus::attn::cuda
