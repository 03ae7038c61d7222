#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

/// The scalar parts that routers and losses share, in f32; sums run in f64 and are rounded once.
namespace annulus::moe {

constexpr float kNoCandidate = -std::numeric_limits<float>::infinity();
/// Below the normalised sigmoids of losses, as in DeepSeek-V3 and Megatron.
constexpr float kSigmoidFloor = 1e-20F;

/// Without overflow on either side; NaN stays NaN.
inline float sigmoid(float z) {
  const float e = std::exp(-std::abs(z));
  return z >= 0 ? 1.0F / (1.0F + e) : e / (1.0F + e);
}

/// s (1 - s), without the cancellation of 1 - s for large z.
inline float sigmoid_slope(float z) {
  const float e = std::exp(-std::abs(z));
  return e / ((1.0F + e) * (1.0F + e));
}

inline std::span<const float> row_of(std::span<const float> matrix, std::int64_t row,
                                     std::int64_t width) {
  return matrix.subspan(static_cast<std::size_t>(row * width), static_cast<std::size_t>(width));
}
inline std::span<float> row_of(std::span<float> matrix, std::int64_t row, std::int64_t width) {
  return matrix.subspan(static_cast<std::size_t>(row * width), static_cast<std::size_t>(width));
}

inline bool has_nan(std::span<const float> logits) {
  return std::ranges::any_of(logits, [](float z) { return std::isnan(z); });
}

/// Fit for losses: no NaN, no +inf, and something that is not -inf.
inline bool is_finite_row(std::span<const float> logits) {
  return !has_nan(logits) && std::isfinite(*std::ranges::max_element(logits));
}

/// p [n] becomes softmax(logits); NaN throughout where the largest is infinite or one is NaN.
/// Returns logsumexp.
inline double softmax(std::span<const float> logits, std::span<float> p) {
  float most = kNoCandidate;
  for (const float z : logits) most = std::isnan(z) || z > most ? z : most;
  double sum = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    p[i] = std::exp(logits[i] - most);
    sum += static_cast<double>(p[i]);
  }
  for (float& value : p) value = static_cast<float>(static_cast<double>(value) / sum);
  return static_cast<double>(most) + std::log(sum);
}

}  // namespace annulus::moe
