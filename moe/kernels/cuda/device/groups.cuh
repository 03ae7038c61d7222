#pragma once

#include "moe/kernels/cuda/device/ranking.cuh"
#include "moe/kernels/cuda/launch.h"

#include <cstdint>

// Group-limited selection: a group is as good as the sum of its best, the largest added first.
namespace annulus::moe::cuda {

/// Sum of the group's `group_top` largest, the largest first.
template <int kEach>
__device__ std::uint32_t group_key(const RouteParams& p, int group,
                                   const std::uint32_t (&keys)[kEach],
                                   const std::int32_t (&group_of)[kEach]) {
  std::uint32_t members[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) members[i] = group_of[i] == group ? keys[i] : kNoKey;
  float sum = 0.0F;
  for (int n = 0; n < p.group_top; ++n) sum += score_of(take_best(members).key);
  return key_of(sum);
}

template <int kEach>
__device__ void keep_any_groups(const RouteParams& p, std::uint32_t (&keys)[kEach]) {
  std::int32_t group_of[kEach];
  std::uint32_t groups[kEach];  // group g at g, as experts
  const int first = lane_id() * kEach;
  const int size = p.experts / p.groups;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    group_of[i] = (first + i) / size;
    groups[i] = kNoKey;
  }
  for (int g = 0; g < p.groups; ++g) {
    const std::uint32_t key = group_key(p, g, keys, group_of);
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      if (first + i == g) groups[i] = key;
    }
  }
  unsigned kept = 0;
  for (int n = 0; n < p.groups_kept; ++n) {
    const std::int32_t best = take_best(groups).at;
#pragma unroll
    for (int i = 0; i < kEach; ++i) kept |= group_of[i] == best ? 1U << i : 0U;
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if ((kept >> i & 1U) == 0) keys[i] = kNoKey;
  }
}

/// Where groups are `lanes` whole lanes, a power of two: all groups at once.
template <int kEach>
__device__ void keep_groups_of_lanes(const RouteParams& p, int lanes,
                                     std::uint32_t (&keys)[kEach]) {
  std::uint32_t members[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) members[i] = keys[i];
  const int begin = lane_id() & ~(lanes - 1);
  const unsigned own_lanes = (kAllLanes >> (kWarp - lanes)) << begin;
  float sum = 0.0F;
  for (int n = 0; n < p.group_top; ++n) {
    const Best own = best_of_lane(members);
    std::uint32_t most = own.key;
    for (int step = 1; step < lanes; step *= 2) {
      const std::uint32_t other = __shfl_xor_sync(kAllLanes, most, step);
      if (other > most) most = other;
    }
    if (lane_id() == first_lane(own.key == most, own_lanes)) take_out(members, own.at);
    sum += score_of(most);
  }
  std::uint32_t key = lane_id() * kEach < p.experts ? key_of(sum) : kNoKey;
  bool kept = false;
  for (int n = 0; n < p.groups_kept; ++n) {
    const std::uint32_t most = __reduce_max_sync(kAllLanes, key);
    const int winner = first_lane(key == most);
    if ((winner & ~(lanes - 1)) != begin) continue;
    kept = true;
    key = kNoKey;
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (!kept) keys[i] = kNoKey;
  }
}

/// Experts outside of the best groups are no candidates, not even where nothing finite is left.
template <int kEach>
__device__ void keep_groups(const RouteParams& p, std::uint32_t (&keys)[kEach]) {
  const int size = p.experts / p.groups;
  const int lanes = size / kEach;
  const bool whole = size % kEach == 0 && (lanes & (lanes - 1)) == 0;
  if (whole) return keep_groups_of_lanes(p, lanes, keys);
  keep_any_groups(p, keys);
}

}  // namespace annulus::moe::cuda
