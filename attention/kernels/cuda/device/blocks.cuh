#pragma once

#include "attention/kernels/cuda/device/mma.cuh"
#include "attention/kernels/cuda/device/tiles.cuh"

#include <cstdint>

// Copies of rows to shared memory, products of shared matrices, and sums over tile lists.
namespace annulus::attn::cuda {

/// Rows of kDim elements to a swizzled matrix of kRows, one 16-byte chunk a thread at a time;
/// source(row) is the address of a row and is asked for rows < rows alone. The rest is zero.
template <typename T, int kDim, int kRows, int kThreads, typename Source>
__device__ inline void copy_rows(std::uint32_t to, int rows, Source&& source) {
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

/// Four consecutive columns of one row, from two threads' parts of a 16 x 8 product: even lanes get
/// row g, columns 2t .. 2t+3, odd ones row g+8, columns 2(t-1) .. 2(t-1)+3.
__device__ inline float4 four_columns(const float (&c)[4], int lane) {
  const bool odd = (lane & 1) != 0;
  const float x = __shfl_xor_sync(0xffffffffU, odd ? c[0] : c[2], 1);
  const float y = __shfl_xor_sync(0xffffffffU, odd ? c[1] : c[3], 1);
  return odd ? make_float4(x, y, c[2], c[3]) : make_float4(c[0], c[1], x, y);
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
