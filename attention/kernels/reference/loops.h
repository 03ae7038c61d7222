#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

// The float64 arithmetic of the reference, as plain loops. No reassociation flag is needed to
// vectorise them: dot keeps eight sums of its own.
namespace annulus::attn::reference {

inline constexpr double kNothing = -std::numeric_limits<double>::infinity();

inline double dot(const double* a, const double* b, std::int64_t n) {
  constexpr std::int64_t kSums = 8;
  double sums[kSums] = {};
  std::int64_t i = 0;
  for (; i + kSums <= n; i += kSums) {
    for (std::int64_t s = 0; s < kSums; ++s) sums[s] += a[i + s] * b[i + s];
  }
  for (; i < n; ++i) sums[i % kSums] += a[i] * b[i];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

inline void add_scaled(double factor, const double* x, std::int64_t n, double* y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

/// The logit of a raw product q.k and its derivative by softmax_scale * q.k.
struct Logit {
  double value = 0.0;
  double slope = 1.0;
};

inline Logit logit_of(double product, double softmax_scale, double softcap) {
  const double score = softmax_scale * product;
  if (softcap == 0.0) return {score, 1.0};
  const double t = std::tanh(score / softcap);
  return {softcap * t, 1.0 - t * t};
}

}  // namespace annulus::attn::reference
