#include "attention/kernels/state.h"

#include <annulus/attention.h>
#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace annulus {

namespace attn {

void merge_row(float* o, float& lse, const float* other, float other_lse, std::int64_t dim) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  if (other_lse == kNothing) return;
  if (lse == kNothing) {
    std::copy_n(other, dim, o);
    lse = other_lse;
    return;
  }
  // Weights in double: a thousand merges then cost no more than a thousand roundings of o.
  const double gap = static_cast<double>(other_lse) - static_cast<double>(lse);
  const double ratio = std::exp(-std::abs(gap));  // of the smaller to the larger: never overflows
  const double larger = 1.0 / (1.0 + ratio);
  const auto weight_other = static_cast<float>(gap > 0.0 ? larger : ratio * larger);
  const auto weight = static_cast<float>(gap > 0.0 ? ratio * larger : larger);
  for (std::int64_t d = 0; d < dim; ++d) o[d] = weight * o[d] + weight_other * other[d];
  lse = static_cast<float>(static_cast<double>(std::max(lse, other_lse)) + std::log1p(ratio));
}

}  // namespace attn

void merge(const StateView& into, const StateView& other) {
  if (into.rows != other.rows || into.dim != other.dim) {
    throw InvalidArgument(fmt::format("merge: states of {} x {} and {} x {} (rows x dim)",
                                      into.rows, into.dim, other.rows, other.dim));
  }
  for (std::int64_t row = 0; row < into.rows; ++row) {
    attn::merge_row(into.o + row * into.dim, into.lse[row], other.o + row * other.dim,
                    other.lse[row], into.dim);
  }
}

}  // namespace annulus
