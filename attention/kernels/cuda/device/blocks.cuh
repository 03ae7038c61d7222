#pragma once

#include "attention/kernels/cuda/device/gather.cuh"
#include "attention/kernels/cuda/device/mma.cuh"
#include "attention/kernels/cuda/device/tiles.cuh"

#include <cstdint>

// Copies of rows to shared memory, products of shared matrices, and sums over tile lists.
namespace annulus::attn::cuda {

/// Rows of kDim elements to a swizzled matrix of kRows, one 16-byte chunk a thread at a time;
/// source(row) is the address of a row and is asked for rows < rows alone. The rest is zero.
template <typename T, int kDim, int kRows, int kThreads, typename Source>
__device__ inline void copy_rows_from(std::uint32_t to, int rows, Source&& source) {
  constexpr int kChunks = kDim / 8;
  constexpr int kStep = kThreads / kChunks;
  const int chunk = static_cast<int>(threadIdx.x) % kChunks;
  const int first = static_cast<int>(threadIdx.x) / kChunks;
#pragma unroll
  for (int i = 0; i < kRows / kStep; ++i) {
    const int row = first + i * kStep;
    const bool real = row < rows;
    const T* from = source(real ? row : 0);
    copy16(swizzled<kDim>(to, row, chunk), from + chunk * 8, real);
  }
}

/// The same for rows that lie `stride` elements apart.
template <typename T, int kDim, int kRows, int kThreads>
__device__ inline void copy_rows(std::uint32_t to, const T* from, std::int64_t stride, int rows) {
  constexpr int kChunks = kDim / 8;
  constexpr int kStep = kThreads / kChunks;
  static_assert(kStep % 8 == 0);  // then the swizzle of all rows of a thread is the same
  const int chunk = static_cast<int>(threadIdx.x) % kChunks;
  const int first = static_cast<int>(threadIdx.x) / kChunks;
  const std::uint32_t place = swizzled<kDim>(to, first, chunk);
  const T* row = from + first * stride + chunk * 8;
#pragma unroll
  for (int i = 0; i < kRows / kStep; ++i) {
    copy16(place + static_cast<std::uint32_t>(i * kStep * kDim * 2), row, first + i * kStep < rows);
    row += kStep * stride;
  }
}

/// c[16 kM][8 kN] += A B over kDepth; a(fragment, m, k) and b(fragment, n, k) load 16 x 16.
template <typename T, int kM, int kN, int kDepth, typename LoadA, typename LoadB>
__device__ inline void multiply(float (&c)[kM][kN][4], LoadA&& load_a_at, LoadB&& load_b_at) {
#pragma unroll
  for (int k = 0; k < kDepth; k += 16) {
    std::uint32_t a[kM][4];
#pragma unroll
    for (int m = 0; m < kM; ++m) load_a_at(a[m], 16 * m, k);
#pragma unroll
    for (int n = 0; n < kN; n += 2) {
      std::uint32_t b[4];
      load_b_at(b, 8 * n, k);
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        mma(c[m][n], a[m], b[0], b[1], T());
        mma(c[m][n + 1], a[m], b[2], b[3], T());
      }
    }
  }
}

/// The same with the fragments of a slice of 16 loaded under the products of the one before it,
/// where there are registers for two.
template <typename T, int kM, int kN, int kDepth, typename LoadA, typename LoadB>
__device__ inline void multiply_ahead(float (&c)[kM][kN][4], LoadA&& load_a_at, LoadB&& load_b_at) {
  std::uint32_t a[2][kM][4], b[2][kN / 2][4];
  const auto load = [&](int stage, int k) {
#pragma unroll
    for (int m = 0; m < kM; ++m) load_a_at(a[stage][m], 16 * m, k);
#pragma unroll
    for (int n = 0; n < kN / 2; ++n) load_b_at(b[stage][n], 16 * n, k);
  };
  load(0, 0);
#pragma unroll
  for (int k = 0; k < kDepth; k += 16) {
    const int stage = k / 16 % 2;
    if (k + 16 < kDepth) load(stage ^ 1, k + 16);
#pragma unroll
    for (int n = 0; n < kN / 2; ++n) {
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        mma(c[m][2 * n], a[stage][m], b[stage][n][0], b[stage][n][1], T());
        mma(c[m][2 * n + 1], a[stage][m], b[stage][n][2], b[stage][n][3], T());
      }
    }
  }
}

template <int kM, int kN>
__device__ inline void clear(float (&c)[kM][kN][4]) {
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) c[m][n][i] = 0.0F;
    }
  }
}

/// *to += v in L2, nothing returned.
__device__ inline void add_in_memory(float* to, float4 v) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1,%2,%3,%4};" ::"l"(to), "f"(v.x),
               "f"(v.y), "f"(v.z), "f"(v.w)
               : "memory");
#else
  atomicAdd(to, v.x);
  atomicAdd(to + 1, v.y);
  atomicAdd(to + 2, v.z);
  atomicAdd(to + 3, v.w);
#endif
}

/// Of tiles [begin, end): the largest row count, the largest key count, and all pairs. Each warp
/// finds them by itself.
struct TileTotals {
  int rows, keys;
  std::int64_t pairs;
};
__device__ inline TileTotals totals_of(const Tile* tiles, int begin, int end) {
  int rows = 0;
  int keys = 0;
  unsigned long long pairs = 0;
  for (int i = begin + static_cast<int>(threadIdx.x & 31U); i < end; i += 32) {
    rows = max(rows, tiles[i].rows);
    keys = max(keys, tiles[i].keys);
    pairs += static_cast<unsigned long long>(tiles[i].rows) *
             static_cast<unsigned long long>(tiles[i].keys);
  }
  for (int mask = 16; mask > 0; mask /= 2) pairs += __shfl_xor_sync(0xffffffffU, pairs, mask);
  return {__reduce_max_sync(0xffffffffU, rows), __reduce_max_sync(0xffffffffU, keys),
          static_cast<std::int64_t>(pairs)};
}

}  // namespace annulus::attn::cuda
