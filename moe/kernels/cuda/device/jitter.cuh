#pragma once

#include "moe/kernels/cuda/device/elements.cuh"
#include "moe/kernels/cuda/launch_balance.h"

#include <cstdint>

// Noise on a router's input, and the bias of balancing without a loss (moe/router_balance.cpp, to
// the bit).
namespace annulus::moe::cuda {

inline constexpr int kJitterThreads = 256;

/// splitmix64
__device__ inline std::uint64_t mixed(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15ULL;
  value = (value ^ value >> 30U) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ value >> 27U) * 0x94d049bb133111ebULL;
  return value ^ value >> 31U;
}

/// A block a token.
template <typename T>
__device__ void jitter_token(const JitterParams& p, std::int64_t token) {
  const auto number = static_cast<std::uint64_t>(p.first_token + token);
  const std::uint64_t row = mixed(p.seed ^ mixed(number));
  const T* from = static_cast<const T*>(p.from) + token * p.from_stride;
  T* to = static_cast<T*>(p.to) + token * p.hidden;
  for (std::int64_t c = static_cast<int>(threadIdx.x); c < p.hidden; c += kJitterThreads) {
    const std::uint64_t bits = mixed(row ^ mixed(~static_cast<std::uint64_t>(c)));
    const float u = static_cast<float>(bits >> 40U) * 0x1p-24F;
    // Without the fused multiply-add that nvcc would make of it.
    const float noise = __fadd_rn(1.0F, __fmul_rn(p.amount, 2.0F * u - 1.0F));
    const float value = __fmul_rn(to_float(from[c]), noise);
    from_float(p.add ? __fadd_rn(to_float(to[c]), value) : value, to[c]);
  }
}

/// A thread an expert.
__device__ inline void update_bias_of(const BiasParams& p, int expert) {
  std::int64_t sum = 0;
  for (int e = 0; e < p.experts; ++e) sum += p.counts[e];
  const std::int64_t scaled = p.counts[expert] * p.experts;
  if (sum > scaled) p.bias[expert] += p.step;
  if (sum < scaled) p.bias[expert] -= p.step;
}

}  // namespace annulus::moe::cuda
