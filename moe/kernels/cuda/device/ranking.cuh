#pragma once

#include "moe/kernels/cuda/device/warp.cuh"

#include <cstdint>

// The largest of values that are spread over a warp: lane l holds kEach neighbours, from l * kEach.
namespace annulus::moe::cuda {

inline constexpr std::uint32_t kNoKey = 0;  ///< below every score's: not to be chosen

/// Unsigned numbers that are ordered as scores are: NaN counts as -inf, both zeroes are one.
__device__ inline std::uint32_t key_of(float score) {
  constexpr std::uint32_t kSign = 0x80000000U;
  constexpr std::uint32_t kMinusInfinity = 0xff800000U;
  const std::uint32_t bits = isnan(score)    ? kMinusInfinity
                             : score == 0.0F ? 0U
                                             : __float_as_uint(score);
  return (bits & kSign) != 0 ? ~bits : bits | kSign;
}

__device__ inline float score_of(std::uint32_t key) {
  constexpr std::uint32_t kSign = 0x80000000U;
  return __uint_as_float((key & kSign) != 0 ? key & ~kSign : ~key);
}

struct Best {
  std::uint32_t key = kNoKey;
  std::int32_t at = 0;
};

/// The largest key, of equal ones the first, which becomes kNoKey. Where all are kNoKey already:
/// kNoKey, at 0.
template <int kEach>
__device__ Best take_best(std::uint32_t (&keys)[kEach]) {
  std::uint32_t own = keys[0];
  int at = 0;
#pragma unroll
  for (int i = 1; i < kEach; ++i) {
    if (keys[i] > own) {
      own = keys[i];
      at = i;
    }
  }
  const std::uint32_t most = __reduce_max_sync(kAllLanes, own);
  const int winner = __ffs(static_cast<int>(__ballot_sync(kAllLanes, own == most))) - 1;
  at = __shfl_sync(kAllLanes, at, winner);
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (lane_id() == winner && i == at) keys[i] = kNoKey;
  }
  return {most, winner * kEach + at};
}

}  // namespace annulus::moe::cuda
