#pragma once

#include <cstdint>

// What the 32 lanes of a warp do together: all of them call, always.
namespace annulus::moe::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffU;

__device__ inline int lane_id() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ inline int warp_id() { return static_cast<int>(threadIdx.x) / kWarp; }
__device__ inline unsigned lower_lanes() { return (1U << lane_id()) - 1U; }

__device__ inline bool any_lane(bool holds) { return __ballot_sync(kAllLanes, holds) != 0; }

/// Sum of this lane's and all lower lanes' values.
__device__ inline std::int32_t scan_lanes(std::int32_t value) {
  for (int step = 1; step < kWarp; step *= 2) {
    const std::int32_t below = __shfl_up_sync(kAllLanes, value, step);
    if (lane_id() >= step) value += below;
  }
  return value;
}

/// In the same order on every lane, so that all have the same bits.
template <typename T>
__device__ T sum_lanes(T value) {
  for (int step = kWarp / 2; step > 0; step /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, step);
  }
  return value;
}

}  // namespace annulus::moe::cuda
