#pragma once

#include "moe/kernels/cuda/device/groups.cuh"
#include "moe/kernels/cuda/device/ranking.cuh"
#include "moe/kernels/cuda/launch.h"

#include <cstdint>

// The router after its product, one warp a token: moe/router.cpp in registers. The k selected lie
// in lanes 0 to k - 1. Sums over slots run in f64 in the order of slots, as there.
namespace annulus::moe::cuda {

__device__ inline float sigmoid_of(float z) {
  const float e = expf(-fabsf(z));
  return z >= 0.0F ? 1.0F / (1.0F + e) : e / (1.0F + e);
}

/// Logits [first, first + kEach) of one token; beyond the experts -inf.
template <int kEach>
__device__ void load_logits(const RouteParams& p, const float* row, float (&z)[kEach]) {
  const int first = lane_id() * kEach;
  if (kEach % 4 == 0 && p.wide) {  // experts, and so every row, are multiples of 4
#pragma unroll
    for (int i = 0; i + 3 < kEach; i += 4) {
      float4 four = make_float4(-INFINITY, -INFINITY, -INFINITY, -INFINITY);
      if (first + i < p.experts) four = *reinterpret_cast<const float4*>(row + first + i);
      z[i] = four.x;
      z[i + 1] = four.y;
      z[i + 2] = four.z;
      z[i + 3] = four.w;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) z[i] = first + i < p.experts ? row[first + i] : -INFINITY;
}

template <int kEach>
__device__ void rank_experts(const RouteParams& p, const float (&z)[kEach],
                             std::uint32_t (&keys)[kEach]) {
  const int first = lane_id() * kEach;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    keys[i] = kNoKey;
    if (first + i >= p.experts) continue;
    float score = z[i];
    if (p.score == Score::sigmoid) {
      score = sigmoid_of(score) + (p.bias != nullptr ? p.bias[first + i] : 0.0F);
    }
    keys[i] = key_of(score);
  }
}

/// A softmax over all experts: exp(z - most) / sum.
struct Softmax {
  float most, sum;

  __device__ float of(float z) const { return expf(z - most) / sum; }
};

/// The largest of the warp's.
template <int kEach>
__device__ float most_of(const float (&z)[kEach]) {
  std::uint32_t key = kNoKey;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const std::uint32_t other = key_of(z[i]);
    if (other > key) key = other;
  }
  return score_of(__reduce_max_sync(kAllLanes, key));
}

template <int kEach>
__device__ Softmax softmax_of(const float (&z)[kEach]) {
  const float most = most_of(z);
  float sum = 0.0F;
#pragma unroll
  for (int i = 0; i < kEach; ++i) sum += expf(z[i] - most);
  return {most, sum_lanes(sum)};
}

/// value over begin + the sum over slots.
__device__ inline float over_slots(int k, float value, double begin) {
  double sum = begin;
  for (int slot = 0; slot < k; ++slot) {
    sum += static_cast<double>(__shfl_sync(kAllLanes, value, slot));
  }
  return static_cast<float>(static_cast<double>(value) / sum);
}

/// The weight of this lane's slot before `scale`, from its logit.
template <int kEach>
__device__ float share_of(const RouteParams& p, const float (&z)[kEach], float chosen) {
  if (p.score == Score::sigmoid) {
    const float s = sigmoid_of(chosen);
    return p.renormalize && p.k > 1 ? over_slots(p.k, s, p.epsilon) : s;
  }
  if (p.score == Score::softmax_all && !p.renormalize) return softmax_of(z).of(chosen);
  const float most = __shfl_sync(kAllLanes, chosen, 0);  // logits select: the best comes first
  return over_slots(p.k, expf(chosen - most), 0.0);
}

template <int kEach>
__device__ bool has_nan(const float (&z)[kEach]) {
  bool nan = false;
#pragma unroll
  for (int i = 0; i < kEach; ++i) nan = nan || isnan(z[i]);
  return nan;
}

template <int kEach>
__device__ void route_token(const RouteParams& p, std::int64_t token) {
  const int lane = lane_id();
  const bool used = lane < p.k;
  const std::int64_t pair = token * p.k + lane;
  if (p.padding != nullptr && p.padding[token] != 0) {
    if (used) p.indices[pair] = -1;
    if (used) p.weights[pair] = 0.0F;
    return;
  }
  const float* row = p.logits + token * p.experts;
  float z[kEach];
  std::uint32_t keys[kEach];
  load_logits(p, row, z);
  rank_experts(p, z, keys);
  if (p.groups_kept < p.groups) keep_groups(p, keys);
  std::int32_t expert = 0;
  for (int slot = 0; slot < p.k; ++slot) {
    const std::int32_t best = take_best(keys).at;
    if (slot == lane) expert = best;
  }
  const float share = share_of(p, z, used ? row[expert] : -INFINITY);
  const bool bad = any_lane(has_nan(z) || (used && !isfinite(share)));
  if (used) p.indices[pair] = expert;
  if (used) p.weights[pair] = bad ? 0.0F : share * p.scale;
  if (bad && lane == 0 && p.bad_tokens != nullptr) atomicAdd(p.bad_tokens, 1U);
}

}  // namespace annulus::moe::cuda
