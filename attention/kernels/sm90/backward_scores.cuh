#pragma once

#include "attention/kernels/sm90/backward_shared.cuh"
#include "attention/kernels/sm90/softmax.cuh"

#include <cstdint>

// From scores to their gradients, in the registers of a consumer. Products are transposed: element
// 4 j + 2 h + e of a thread is of key lane / 4 + 8 h of its warp's 16 and of query row
// 8 j + 2 (lane % 4) + e of the step.
namespace annulus::attn::sm90 {

/// The numbers of a thread's two rows of columns j.
__device__ __forceinline__ float2 of_rows(const float* numbers, int j, int lane) {
  return *reinterpret_cast<const float2*>(numbers + 8 * j + 2 * (lane & 3));
}

/// Scores to P. `scale`: what takes a score to exponents of 2.
template <int kCount>
__device__ __forceinline__ void find_probabilities(float (&s)[kCount], const float* lse,
                                                   float scale, int lane) {
#pragma unroll
  for (int j = 0; j < kCount / 4; ++j) {
    const float2 shift = of_rows(lse, j, lane);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      s[4 * j + 2 * h] = exp2_fast(fmaf(s[4 * j + 2 * h], scale, -shift.x));
      s[4 * j + 2 * h + 1] = exp2_fast(fmaf(s[4 * j + 2 * h + 1], scale, -shift.y));
    }
  }
}

/// dP to dS, without softmax_scale, where s is P.
template <int kCount>
__device__ __forceinline__ void find_gradients(const float (&s)[kCount], float (&dp)[kCount],
                                               const float* delta, int lane) {
#pragma unroll
  for (int j = 0; j < kCount / 4; ++j) {
    const float2 sums = of_rows(delta, j, lane);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      dp[4 * j + 2 * h] = s[4 * j + 2 * h] * (dp[4 * j + 2 * h] - sums.x);
      dp[4 * j + 2 * h + 1] = s[4 * j + 2 * h + 1] * (dp[4 * j + 2 * h + 1] - sums.y);
    }
  }
}

/// With a softcap: dP times the slope of the cap, while the score is still there, and the score
/// capped, in exponents of 2.
template <int kCount>
__device__ __forceinline__ void cap_gradients(const cuda::Geometry& g, float (&s)[kCount],
                                              float (&dp)[kCount], const float* delta, int lane) {
  const auto softcap = static_cast<float>(g.softcap);
  const float to_tanh = static_cast<float>(g.softmax_scale) / softcap;
#pragma unroll
  for (int j = 0; j < kCount / 4; ++j) {
    const float2 sums = of_rows(delta, j, lane);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float t = tanh_fast(s[4 * j + i] * to_tanh);
      dp[4 * j + i] = (dp[4 * j + i] - (i % 2 == 0 ? sums.x : sums.y)) * (1.0F - t * t);
      s[4 * j + i] = t * softcap;
    }
  }
}

/// Zero where a row does not see a key; `seen`: of the step and the warp.
template <int kCount>
__device__ __forceinline__ void hide(float (&x)[kCount], const std::uint16_t* seen, int lane) {
#pragma unroll
  for (int j = 0; j < kCount / 4; ++j) {
    const std::uint32_t bits =
        *reinterpret_cast<const std::uint32_t*>(seen + 8 * j + 2 * (lane & 3)) >> (lane >> 2);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (((bits >> (8 * h)) & 1U) == 0) x[4 * j + 2 * h] = 0.0F;
      if (((bits >> (8 * h + 16)) & 1U) == 0) x[4 * j + 2 * h + 1] = 0.0F;
    }
  }
}

template <typename T, int kCount>
__device__ __forceinline__ void pack_all(const float (&x)[kCount], std::uint32_t (&to)[kCount / 2]) {
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i) to[i] = pack(x[2 * i], x[2 * i + 1], T());
}

/// The warp's 16 keys, from `key` on, of a matrix [key][row] of blocks of kTileKeys keys.
template <int kCount>
__device__ __forceinline__ void store_packs(std::uint32_t to, int key, int lane,
                                            const std::uint32_t (&packs)[kCount]) {
  // Lane 8 i + r names row r of matrix i: keys 8 (i % 2) and rows 8 (i / 2) further on.
  const int row = key + (lane & 15);
#pragma unroll
  for (int k = 0; k < kCount / 4; ++k) {
    store_matrices(to + place_in_matrix(kTileKeys, row, 2 * k + (lane >> 4)), packs + 4 * k);
  }
}

}  // namespace annulus::attn::sm90
