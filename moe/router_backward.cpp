// Gradients of the weights: a softmax over the selected, a softmax over all, or sigmoids.
#include "moe/router_input.h"
#include "moe/router_math.h"
#include "moe/routing.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace annulus::moe {
namespace {

double sum_of_products(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  return sum;
}

void require(const char* what, std::size_t have, std::size_t need) {
  if (have != need) {
    throw InvalidArgument(fmt::format("router: {} has {} values, needs {}", what, have, need));
  }
}

void check_shapes(const RouterConfig& c, std::int64_t tokens, const Routing& selected,
                  const Routing& kept, std::span<const float> dweights, std::span<float> dlogits) {
  const auto pairs = static_cast<std::size_t>(tokens * c.k);
  require("selected", selected.indices.size(), pairs);
  check(selected);
  require("kept", kept.indices.size(), pairs);
  require("dweights", dweights.size(), pairs);
  require("dlogits", dlogits.size(), static_cast<std::size_t>(tokens * c.experts));
}

}  // namespace

void Router::scatter_gradient(std::span<const float> logits, std::span<const std::int32_t> chosen,
                              std::span<float> dlogits) {
  const std::span<const float> shares = shares_;
  const std::span<const float> g = gradients_;
  const bool sigmoids = config_.score == Score::sigmoid;
  const bool normalised = sigmoids
                              ? config_.renormalize && config_.k > 1
                              : config_.score == Score::softmax_selected || config_.renormalize;
  // sum of (share, gradient): what normalising takes away from each. Softmax over all takes it too.
  const double mean = !sigmoids || normalised ? sum_of_products(shares, g) : 0.0;
  if (!sigmoids && !normalised) {
    for (std::size_t e = 0; e < dlogits.size(); ++e) {
      dlogits[e] = static_cast<float>(-static_cast<double>(scores_[e]) * mean);
    }
  }
  double sum = config_.epsilon;
  for (const std::int32_t e : chosen)
    sum += static_cast<double>(sigmoid(logits[static_cast<std::size_t>(e)]));
  for (std::size_t slot = 0; slot < chosen.size(); ++slot) {
    const auto e = static_cast<std::size_t>(chosen[slot]);
    const double pull = static_cast<double>(g[slot]) - mean;
    if (sigmoids) {
      dlogits[e] = static_cast<float>(pull / (normalised ? sum : 1.0) *
                                      static_cast<double>(sigmoid_slope(logits[e])));
    } else {
      dlogits[e] = static_cast<float>(static_cast<double>(shares[slot]) * pull);
    }
  }
}

void Router::backward(const RouterInput& input, const Routing& selected, const Routing& kept,
                      std::span<const float> dweights, std::span<float> dlogits) {
  const std::int64_t tokens = tokens_of(config_, input);
  check_shapes(config_, tokens, selected, kept, dweights, dlogits);
  std::ranges::fill(dlogits, 0.0F);
  const auto k = static_cast<std::size_t>(config_.k);
  for (std::int64_t token = 0; token < tokens; ++token) {
    const std::size_t first = pair_of(selected, token, 0);
    const std::span chosen(&selected.indices[first], k);
    if (chosen[0] < 0) continue;  // padding
    const auto logits = row_of(input.logits, token, config_.experts);
    if (!weigh(logits, chosen, shares_)) continue;  // its weights are a constant 0
    for (std::size_t slot = 0; slot < k; ++slot) {
      const bool passes = kept.indices[first + slot] >= 0;
      gradients_[slot] = passes ? static_cast<float>(config_.scale) * dweights[first + slot] : 0.0F;
    }
    scatter_gradient(logits, chosen, row_of(dlogits, token, config_.experts));
  }
}

}  // namespace annulus::moe
