#pragma once

#include "moe/kernels/cuda/device/router_backward.cuh"
#include "moe/kernels/cuda/launch_balance.h"

#include <cstdint>

// Balancing losses, one warp a token: moe/losses.cpp in registers. Sums over experts run in f64, in
// one order; those over tokens too, in a kernel of their own.
namespace annulus::moe::cuda {

inline constexpr int kSumThreads = 256;
inline constexpr double kSigmoidFloor = 1e-20;  ///< as moe/router_math.h

__device__ inline void count(std::int64_t* counter, unsigned more) {
  atomicAdd(reinterpret_cast<unsigned long long*>(counter), static_cast<unsigned long long>(more));
}

/// Padding and tokens whose logits are no numbers are in no loss.
template <int kEach>
__device__ bool is_in_losses(const RouteParams& p, const float (&z)[kEach], float most,
                             std::int64_t token) {
  const bool padding = p.padding != nullptr && p.padding[token] != 0;
  return !any_lane(has_nan(z)) && isfinite(most) && !padding;
}

__device__ inline std::int64_t set_at(const LossParams& p, std::int64_t token) {
  return p.set_of != nullptr ? p.set_of[token] : 0;
}

/// Selections by the plain k largest logits.
template <int kEach>
__device__ void count_token(const LossParams& p, std::int64_t token) {
  const RouteParams& r = p.route;
  float z[kEach];
  load_logits(r, r.logits + token * r.experts, z);
  if (!is_in_losses(r, z, most_of(z), token)) return;
  std::uint32_t keys[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    keys[i] = lane_id() * kEach + i < r.experts ? key_of(z[i]) : kNoKey;
  }
  const std::int64_t set = set_at(p, token);
  for (int slot = 0; slot < r.k; ++slot) {
    const std::int32_t best = take_best(keys).at;
    if (slot == lane_id()) count(p.counts + set * r.experts + best, 1);
  }
  if (lane_id() == 0) count(p.counts + p.sets * r.experts + set, 1);
}

/// Shares of experts: of a softmax, or of sigmoids over their sum.
template <int kEach>
struct Shares {
  float q[kEach];
  double sum;

  __device__ Shares(const float (&z)[kEach], float most, bool sigmoids) {
    double own = 0.0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {  // beyond the experts z is -inf, and q 0
      q[i] = sigmoids ? sigmoid_of(z[i]) : expf(z[i] - most);
      own += static_cast<double>(q[i]);
    }
    sum = sum_lanes(own) + (sigmoids ? kSigmoidFloor : 0.0);
#pragma unroll
    for (int i = 0; i < kEach; ++i) q[i] = static_cast<float>(static_cast<double>(q[i]) / sum);
  }
};

/// This token's term; the gradient is added where it is wanted.
template <int kEach>
__device__ double balance_token(const LossParams& p, const float (&z)[kEach], float most,
                                std::int64_t token) {
  const RouteParams& r = p.route;
  const std::int64_t set = set_at(p, token);
  const auto tokens = static_cast<double>(p.counts[p.sets * r.experts + set]);
  if (p.alpha == 0.0 || tokens == 0.0) return 0.0;
  const bool sigmoids = r.score == Score::sigmoid;
  const Shares<kEach> shares(z, most, sigmoids);
  const int first = lane_id() * kEach;
  double n[kEach];
  double own = 0.0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const bool real = first + i < r.experts;
    n[i] = real ? static_cast<double>(p.counts[set * r.experts + first + i]) : 0.0;
    own += n[i] * static_cast<double>(shares.q[i]);
  }
  const double mean = sum_lanes(own);
  const double scale =
      p.alpha * static_cast<double>(r.experts) / (static_cast<double>(r.k) * tokens * tokens);
  float* dlogits = p.dlogits + token * r.experts;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (p.dlogits == nullptr || first + i >= r.experts) continue;
    const double slope = sigmoids ? static_cast<double>(sigmoid_slope_of(z[i])) / shares.sum
                                  : static_cast<double>(shares.q[i]);
    dlogits[first + i] += static_cast<float>(scale * (n[i] - mean) * slope);
  }
  return scale * mean;
}

template <int kEach>
__device__ double z_token(const LossParams& p, const float (&z)[kEach], float most,
                          std::int64_t token) {
  if (p.beta == 0.0) return 0.0;
  const Shares<kEach> softmax(z, most, false);
  const double lse = static_cast<double>(most) + log(softmax.sum);
  const int first = lane_id() * kEach;
  float* dlogits = p.dlogits + token * p.route.experts;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (p.dlogits == nullptr || first + i >= p.route.experts) continue;
    dlogits[first + i] +=
        static_cast<float>(2.0 * p.beta * lse * static_cast<double>(softmax.q[i]));
  }
  return p.beta * lse * lse;
}

template <int kEach>
__device__ void add_token(const LossParams& p, std::int64_t token) {
  const RouteParams& r = p.route;
  float z[kEach];
  load_logits(r, r.logits + token * r.experts, z);
  const float most = most_of(z);
  const bool counts = is_in_losses(r, z, most, token);
  const double balance = counts ? balance_token(p, z, most, token) : 0.0;
  const double squares = counts ? z_token(p, z, most, token) : 0.0;
  if (p.terms == nullptr || lane_id() != 0) return;
  p.terms[token] = balance;
  p.terms[r.tokens + token] = squares;
}

/// One block: each thread sums every kSumThreads-th term, then pairs of threads.
__device__ inline void sum_terms(const LossParams& p, double* shared) {
  const auto thread = static_cast<int>(threadIdx.x);
  for (int loss = 0; loss < 2; ++loss) {
    double sum = 0.0;
    for (std::int64_t t = thread; t < p.route.tokens; t += kSumThreads) {
      sum += p.terms[loss * p.route.tokens + t];
    }
    __syncthreads();  // the loss before was read
    shared[thread] = sum;
    for (int half = kSumThreads / 2; half > 0; half /= 2) {
      __syncthreads();
      if (thread < half) shared[thread] += shared[thread + half];
    }
    if (thread == 0) p.sums[loss] = shared[0];
  }
}

}  // namespace annulus::moe::cuda
