#pragma once

#include "attention/kernels/sm90/backward_shared.cuh"
#include "attention/kernels/sm90/softmax.cuh"

#include <cstdint>

// From scores to their gradients, in the registers of a consumer. Products are transposed: element
// 4 j + 2 h + e of a thread is of key lane / 4 + 8 h of its warp's 16 and of query row
// 8 j + 2 (lane % 4) + e of the step.
namespace annulus::attn::sm90 {

/// The numbers of a thread's two rows of columns j, of kColumns (place_of_number).
template <int kRows>
__device__ __forceinline__ float2 of_rows(const float* numbers, int j, int lane) {
  const int first = kRows > 64 ? 8 * j + 2 * (lane & 3) : j / 2 * 16 + 4 * (lane & 3) + j % 2 * 2;
  return *reinterpret_cast<const float2*>(numbers + first);
}

/// The same of a step of kRows rows, read when asked for.
template <int kRows>
struct RowNumbers {
  const float* numbers;

  __device__ __forceinline__ RowNumbers(const float* from, int /*lane*/) : numbers(from) {}
  __device__ __forceinline__ float2 of(int j, int lane) const {
    return of_rows<kRows>(numbers, j, lane);
  }
};

/// The same of kRows of a step's 64 rows, read when this is made. What is read from shared memory
/// behind products that are started waits until the tensor cores take them: so it is read before.
template <int kRows>
struct HeldNumbers {
  float4 pairs[kRows / 16];

  __device__ __forceinline__ HeldNumbers(const float* from, int lane) {
#pragma unroll
    for (int i = 0; i < kRows / 16; ++i) {
      pairs[i] = *reinterpret_cast<const float4*>(from + 16 * i + 4 * (lane & 3));
    }
  }
  __device__ __forceinline__ float2 of(int j, int /*lane*/) const {
    const float4& pair = pairs[j / 2];
    return j % 2 == 0 ? make_float2(pair.x, pair.y) : make_float2(pair.z, pair.w);
  }
};

/// Scores to P, of elements 4 j + 2 h and the next. `scale`: what takes a product to exponents
/// of 2.
template <int kCount, typename Numbers>
__device__ __forceinline__ void find_pair(float (&s)[kCount], const Numbers& lse, float scale,
                                          int lane, int j, int h) {
  const float2 shift = lse.of(j, lane);
  s[4 * j + 2 * h] = exp2_fast(fmaf(s[4 * j + 2 * h], scale, -shift.x));
  s[4 * j + 2 * h + 1] = exp2_fast(fmaf(s[4 * j + 2 * h + 1], scale, -shift.y));
}

// These work on columns [first, first + kColumns) of 8 rows each.

/// Scores to P.
template <int kColumns, int kCount, typename Numbers>
__device__ __forceinline__ void find_probabilities(float (&s)[kCount], const Numbers& lse,
                                                   float scale, int lane, int first) {
#pragma unroll
  for (int j = first; j < first + kColumns; ++j) {
    find_pair(s, lse, scale, lane, j, 0);
    find_pair(s, lse, scale, lane, j, 1);
  }
}

/// dP to dS, without softmax_scale, where s is P.
template <int kColumns, int kCount, typename Numbers>
__device__ __forceinline__ void find_gradients(const float (&s)[kCount], float (&dp)[kCount],
                                               const Numbers& delta, int lane, int first) {
#pragma unroll
  for (int j = first; j < first + kColumns; ++j) {
    const float2 sums = delta.of(j, lane);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      dp[4 * j + 2 * h] = s[4 * j + 2 * h] * (dp[4 * j + 2 * h] - sums.x);
      dp[4 * j + 2 * h + 1] = s[4 * j + 2 * h + 1] * (dp[4 * j + 2 * h + 1] - sums.y);
    }
  }
}

/// Both at once: while exponentials are under way, which come one in eight clocks, differences and
/// products are found beside them.
template <int kColumns, int kCount, typename Numbers>
__device__ __forceinline__ void find_both(float (&s)[kCount], float (&dp)[kCount],
                                          const Numbers& lse, const Numbers& delta, float scale,
                                          int lane, int first) {
#pragma unroll
  for (int j = first; j < first + kColumns; ++j) {
    find_probabilities<1>(s, lse, scale, lane, j);
    find_gradients<1>(s, dp, delta, lane, j);
  }
}

/// With a softcap: scores to P and dP to dS at once, for the slope of the cap is not kept.
template <int kColumns, int kCount, typename Numbers>
__device__ __forceinline__ void find_capped(const Factors& factors, float (&s)[kCount],
                                            float (&dp)[kCount], const Numbers& lse,
                                            const Numbers& delta, int lane, int first) {
#pragma unroll
  for (int j = first; j < first + kColumns; ++j) {
    const float2 shift = lse.of(j, lane);
    const float2 sums = delta.of(j, lane);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& x = s[4 * j + i];
      float& d = dp[4 * j + i];
      const float t = tanh_fast(x * factors.to_tanh);
      x = exp2_fast(fmaf(t, factors.to_exponent, i % 2 == 0 ? -shift.x : -shift.y));
      d = x * ((d - (i % 2 == 0 ? sums.x : sums.y)) * (1.0F - t * t));
    }
  }
}

/// Zero where a row does not see a key; `seen`: of the step and the warp.
template <int kColumns, int kCount>
__device__ __forceinline__ void hide(float (&x)[kCount], const std::uint16_t* seen, int lane,
                                     int first) {
#pragma unroll
  for (int j = first; j < first + kColumns; ++j) {
    const std::uint32_t bits =
        *reinterpret_cast<const std::uint32_t*>(seen + 8 * j + 2 * (lane & 3)) >> (lane >> 2);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (((bits >> (8 * h)) & 1U) == 0) x[4 * j + 2 * h] = 0.0F;
      if (((bits >> (8 * h + 16)) & 1U) == 0) x[4 * j + 2 * h + 1] = 0.0F;
    }
  }
}

template <typename T, int kColumns, int kCount>
__device__ __forceinline__ void pack_columns(const float (&x)[kCount],
                                             std::uint32_t (&to)[kCount / 2], int first) {
#pragma unroll
  for (int i = 2 * first; i < 2 * (first + kColumns); ++i) {
    to[i] = pack(x[2 * i], x[2 * i + 1], T());
  }
}

/// The warp's 16 keys, from `key` on, of a matrix [row][key] of blocks of kRows rows.
template <int kRows, int kCount>
__device__ __forceinline__ void store_by_row(std::uint32_t to, int key, int lane,
                                             const std::uint32_t (&packs)[kCount]) {
  // Lane 8 i + r names row r of matrix i: keys 8 (i % 2) and rows 8 (i / 2) further on.
  const int row = 8 * (lane >> 4) + (lane & 7);
  const std::uint32_t first = to + place_in_matrix(kRows, row, key / 8 + ((lane >> 3) & 1));
#pragma unroll
  for (int k = 0; k < kCount / 4; ++k) store_turned(first + 16 * k * kRowBytes, packs + 4 * k);
}

/// The warp's 16 keys, from `key` on, and the step's rows from chunk `chunk` on, of a matrix
/// [key][row] of blocks of kKeys keys.
template <int kKeys, int kCount>
__device__ __forceinline__ void store_packs(std::uint32_t to, int key, int chunk, int lane,
                                            const std::uint32_t (&packs)[kCount]) {
  // Lane 8 i + r names row r of matrix i: keys 8 (i % 2) and rows 8 (i / 2) further on.
  const int row = key + (lane & 15);
#pragma unroll
  for (int k = 0; k < kCount / 4; ++k) {
    store_matrices(to + place_in_matrix(kKeys, row, chunk + 2 * k + (lane >> 4)), packs + 4 * k);
  }
}

}  // namespace annulus::attn::sm90
