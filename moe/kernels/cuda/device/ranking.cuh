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

/// The largest of one lane's keys, of equal ones the first.
template <int kEach>
__device__ Best best_of_lane(const std::uint32_t (&keys)[kEach]) {
  Best best{keys[0], 0};
#pragma unroll
  for (int i = 1; i < kEach; ++i) {
    if (keys[i] > best.key) best = {keys[i], i};
  }
  return best;
}

template <int kEach>
__device__ void take_out(std::uint32_t (&keys)[kEach], int at) {
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (i == at) keys[i] = kNoKey;
  }
}

/// The lowest lane that says so; -1 where none does.
__device__ inline int first_lane(bool holds, unsigned among = kAllLanes) {
  return __ffs(static_cast<int>(__ballot_sync(kAllLanes, holds) & among)) - 1;
}

/// The largest key of the warp, of equal ones the first, which becomes kNoKey. Where all are kNoKey
/// already: kNoKey, at 0.
template <int kEach>
__device__ Best take_best(std::uint32_t (&keys)[kEach]) {
  const Best own = best_of_lane(keys);
  const std::uint32_t most = __reduce_max_sync(kAllLanes, own.key);
  const int winner = first_lane(own.key == most);
  const int at = __shfl_sync(kAllLanes, own.at, winner);
  if (lane_id() == winner) take_out(keys, at);
  return {most, winner * kEach + at};
}

}  // namespace annulus::moe::cuda
