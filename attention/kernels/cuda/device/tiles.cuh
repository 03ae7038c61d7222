#pragma once

#include "attention/kernels/cuda/geometry.h"

#include <cstdint>

// What launch geometry means on the device: tokens, masks, flags, turns.
namespace annulus::attn::cuda {

/// Token of launch row `row`.
__device__ inline std::int64_t token_of_row(const Geometry& g, std::int64_t row) {
  for (int i = 0; i < g.query_count; ++i) {
    const QuerySegment& segment = g.queries[i];
    if (row < segment.row + segment.count && row >= segment.row) {
      return segment.token + row - segment.row;
    }
  }
  return 0;
}

/// Tokens of the launch rows [row, row + rows): looked up one by one only where they are of several
/// segments.
struct RowTokens {
  std::int64_t shift = 0;
  bool one = false;
  __device__ RowTokens(const Geometry& g, std::int64_t row, std::int64_t rows) {
    for (int i = 0; i < g.query_count && !one; ++i) {
      const QuerySegment& segment = g.queries[i];
      one = segment.row <= row && row + rows <= segment.row + segment.count;
      shift = segment.token - segment.row;
    }
  }
  __device__ std::int64_t of(const Geometry& g, std::int64_t row) const {
    return one ? row + shift : token_of_row(g, row);
  }
};

__device__ inline std::int64_t kv_head_of(const Geometry& g, std::int64_t head) {
  return (g.head_offset + head) / g.group;
}

/// Query heads [first, last) of the launch that read one key/value head.
struct HeadRange {
  int first, last;
};
__device__ inline HeadRange heads_of(const Geometry& g, std::int64_t kv_head) {
  const std::int64_t first = kv_head * g.group - g.head_offset;
  const std::int64_t last = first + g.group;
  return {static_cast<int>(first < 0 ? 0 : first),
          static_cast<int>(last < g.heads ? last : g.heads)};
}

/// Largest row count of the tiles [begin, end), which begin at one row.
__device__ inline int rows_of(const Tile* tiles, int begin, int end) {
  int rows = 0;
  for (int i = begin; i < end; ++i) rows = max(rows, tiles[i].rows);
  return rows;
}

/// The lowest `n` of 32 bits; n is cut to [0, 32].
__device__ inline std::uint32_t low_bits(int n) {
  return static_cast<std::uint32_t>((std::uint64_t{1} << max(0, min(n, 32))) - 1);
}

/// Keys that a row sees of some consecutive keys: [begin, end) of each interval, as indices.
struct VisibleKeys {
  int begin[2], end[2];
  /// Of the keys first .. first + 31, one bit each.
  __device__ std::uint32_t bits(int first) const {
    return (low_bits(end[0] - first) & ~low_bits(begin[0] - first)) |
           (low_bits(end[1] - first) & ~low_bits(begin[1] - first));
  }
  __device__ bool sees(int key) const {
    return (key >= begin[0] && key < end[0]) || (key >= begin[1] && key < end[1]);
  }
};

/// ceil((position - first) / stride) within [0, keys]. The quotient is guessed in f32, right to one
/// or two for the few hundred keys of a tile, and then corrected: a division of 64 bits is a call,
/// and callers have no register to spare.
__device__ inline int key_index(std::int64_t position, std::int64_t first, std::int64_t stride,
                                int keys) {
  const std::int64_t distance = position - first;
  if (distance <= 0) return 0;
  if (distance > (keys - 1) * stride) return keys;
  if (stride == 1) return static_cast<int>(distance);
  int index =
      static_cast<int>(__fdividef(static_cast<float>(distance), static_cast<float>(stride)));
  while (index * stride < distance) ++index;
  while ((index - 1) * stride >= distance) --index;
  return index;
}

/// For `keys` keys whose first is at position `first`. Indices of a key are rounded up: key j is at
/// or after `position` exactly if j >= ceil((position - first) / stride).
__device__ inline VisibleKeys visible_keys(const Geometry& g, std::int64_t row, std::int64_t first,
                                           std::int64_t stride, int keys) {
  VisibleKeys visible;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const KeyInterval interval = g.intervals[2 * row + i];
    visible.begin[i] = key_index(interval.begin, first, stride, keys);
    visible.end[i] = key_index(interval.end, first, stride, keys);
  }
  return visible;
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

/// All of [0, keys), or nothing.
__device__ inline VisibleKeys all_keys(int keys) { return {{0, 0}, {keys, 0}}; }

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

/// One thread: waits for a segment's flag. False where the launch was aborted.
__device__ inline bool await_flag(const Geometry& g, const std::uint32_t* flag) {
  while (load_acquire_system(flag) == 0) {
    if (aborted(g)) return false;
    __nanosleep(100);
  }
  return true;
}

/// The whole block: waits for a segment's flag, if it has one. False where the launch was aborted.
__device__ inline bool await_segment(const Geometry& g, const KeySegment& segment) {
  if (segment.ready == nullptr) return true;
  bool good = true;
  if (threadIdx.x == 0) good = await_flag(g, segment.ready);
  return __syncthreads_and(good) != 0;
}

/// One thread: waits until it is its turn. False where the launch was aborted.
__device__ inline bool await_turn(const Geometry& g, const int* counter, int turn) {
  for (int spins = 0; load_acquire(counter) != turn; ++spins) {
    if ((spins & 63) == 63 && aborted(g)) return false;
    __nanosleep(20);
  }
  return true;
}

/// Turn counter of half `half` of a query tile.
__device__ inline std::int64_t turn_index(const Geometry& g, int batch, int head, int row_tile,
                                          int half) {
  return ((static_cast<std::int64_t>(batch) * g.heads + head) * g.row_tile_count + row_tile) * 2 +
         half;
}

__device__ inline void count_flops(const Geometry& g, std::int64_t flops) {
  if (g.flops != nullptr) atomicAdd(g.flops, static_cast<unsigned long long>(flops));
}

}  // namespace annulus::attn::cuda
