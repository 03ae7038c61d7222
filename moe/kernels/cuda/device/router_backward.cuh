#pragma once

#include "moe/kernels/cuda/device/router.cuh"

#include <cstdint>

// Gradients of the router's weights, one warp a token: moe/router_backward.cpp. What normalising
// takes away from each is a sum over slots, in their order and in f64.
namespace annulus::moe::cuda {

__device__ inline float sigmoid_slope_of(float z) {
  const float e = expf(-fabsf(z));
  return e / ((1.0F + e) * (1.0F + e));
}

__device__ inline double sum_slots(int k, double begin, float a, float b) {
  double sum = begin;
  for (int slot = 0; slot < k; ++slot) {
    sum += static_cast<double>(__shfl_sync(kAllLanes, a, slot)) *
           static_cast<double>(__shfl_sync(kAllLanes, b, slot));
  }
  return sum;
}

/// What experts that were not selected get: 0, or their part of a softmax over all.
template <int kEach>
__device__ void write_others(const RouteParams& p, float* dlogits, const float (&z)[kEach],
                             bool over_all, double mean) {
  const int first = lane_id() * kEach;
  const Softmax softmax = over_all ? softmax_of(z) : Softmax{0.0F, 1.0F};
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (first + i >= p.experts) continue;
    const double share = over_all ? static_cast<double>(softmax.of(z[i])) : 0.0;
    dlogits[first + i] = static_cast<float>(-share * mean);
  }
}

template <int kEach>
__device__ void route_token_backward(const RouteBackwardParams& b, std::int64_t token) {
  const RouteParams& p = b.forward;
  const bool used = lane_id() < p.k;
  const std::int64_t pair = token * p.k + lane_id();
  const std::int32_t expert = used ? p.indices[pair] : -1;
  const float* row = p.logits + token * p.experts;
  float* dlogits = b.dlogits + token * p.experts;
  float z[kEach];
  load_logits(p, row, z);
  const float chosen = expert >= 0 ? row[expert] : -INFINITY;
  const float share = share_of(p, z, chosen);
  const bool padding = __shfl_sync(kAllLanes, expert, 0) < 0;
  const bool bad = any_lane(has_nan(z) || (used && !isfinite(share)));
  if (padding || bad) return write_others(p, dlogits, z, false, 0.0);
  const bool passes = used && (b.kept == nullptr || b.kept[pair] >= 0);
  const float g = passes ? p.scale * b.dweights[pair] : 0.0F;
  const bool sigmoids = p.score == Score::sigmoid;
  const bool normalised =
      sigmoids ? p.renormalize && p.k > 1 : p.score == Score::softmax_selected || p.renormalize;
  const double mean = !sigmoids || normalised ? sum_slots(p.k, 0.0, share, g) : 0.0;
  write_others(p, dlogits, z, !sigmoids && !normalised, mean);
  const float s = sigmoids ? sigmoid_of(chosen) : 0.0F;
  const double sum = sigmoids && normalised ? sum_slots(p.k, p.epsilon, s, 1.0F) : 1.0;
  __syncwarp();  // another lane wrote this expert's
  if (!used) return;
  const double pull = static_cast<double>(g) - mean;
  const double slope = static_cast<double>(sigmoids ? sigmoid_slope_of(chosen) : share);
  dlogits[expert] = static_cast<float>(pull / sum * slope);
}

}  // namespace annulus::moe::cuda
