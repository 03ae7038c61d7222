#pragma once

#include "tests/moe_layer/layer_oracle.h"

#include <cmath>
#include <cstdint>

namespace annulus::testing {

/// A random layer whose products no order of additions changes: hidden = ffn, and each expert's
/// matrices have one value in each row and column, plus or minus a power of two, others for every
/// expert. Sums over hidden or ffn have one term then, those of a gated d(x) two, of exact
/// products. So a library that chooses the order of a sum by its size gives the same bits for every
/// number of rows, and what is left is how rows travel and how the slots of a token are summed. The
/// gradients of weights are sums over tokens: not of this kind.
inline LayerCase order_free_layer(std::uint64_t seed, moe::LayerConfig config,
                                  std::int64_t tokens) {
  config.ffn = config.hidden;
  LayerCase layer = random_layer(seed, config, tokens);
  const std::int64_t n = config.hidden;
  const auto fill = [n](Values& matrices, std::int64_t experts, std::int64_t salt) {
    for (std::int64_t e = 0; e < experts; ++e) {
      for (std::int64_t row = 0; row < n; ++row) {
        const std::int64_t column = (row + (e + 1) * salt) % n;
        for (std::int64_t c = 0; c < n; ++c) {
          const double value = std::ldexp((row + e) % 3 == 0 ? -1.0 : 1.0,
                                          static_cast<int>((row * salt + e) % 4) - 1);
          matrices[static_cast<std::size_t>((e * n + row) * n + c)] = c == column ? value : 0.0;
        }
      }
    }
  };
  if (config.activation == moe::Activation::swiglu) fill(layer.experts.gate, config.experts, 3);
  fill(layer.experts.up, config.experts, 5);
  fill(layer.experts.down, config.experts, 7);
  return layer;
}

}  // namespace annulus::testing
