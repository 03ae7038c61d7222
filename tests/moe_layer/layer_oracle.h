#pragma once

#include <annulus/moe_layer.h>

#include <cstdint>
#include <string>
#include <vector>

// What a mixture-of-experts layer is, in float64, token by token from the definition. Shares no
// code with the library.
namespace annulus::testing {

using Values = std::vector<double>;

/// Compact [experts][ffn][hidden] twice, and [experts][hidden][ffn].
struct OracleExperts {
  Values gate, up, down;
};

/// A layer with the tokens of all ranks and what comes in; every value is one of config.dtype.
struct LayerCase {
  std::uint64_t seed = 0;
  moe::LayerConfig config;
  std::int64_t tokens = 0;
  Values x{}, dy{};  ///< [tokens][hidden]
  OracleExperts experts{}, shared{};
  Values router{};  ///< [experts][hidden]
  std::vector<float> bias{};
  moe::Routing routing{};  ///< without a router: the caller's
  /// Which balancing loss a token is in: its sequence, or its rank. Empty: there is one.
  std::vector<std::int32_t> loss_set{};
  std::uint64_t noise_seed = 5;

  std::string describe() const;
};

/// Random values of any size; with `-1` pairs where the case brings its routing.
LayerCase random_layer(std::uint64_t seed, const moe::LayerConfig& config, std::int64_t tokens);

/// What a layer gives, for all tokens and experts.
struct LayerResult {
  Values y, dx;
  OracleExperts experts{}, shared{};
  Values router;
  Values dweights;  ///< [tokens][k]
  double balance_loss = 0, z_loss = 0;
};

/// The routing of the case, or what its router decides; `gap` is the smallest lead that decided.
moe::Routing oracle_routing(const LayerCase& layer, double* gap = nullptr);

/// What is left where each rank drops what is over the capacity of its tokens.
moe::Routing oracle_kept(const LayerCase& layer, const moe::Routing& routing,
                         const std::vector<std::int64_t>& tokens_by_rank);

/// The truth, with balance and z-loss in the gradients. Weights are those that the router gives for
/// these selections; pairs that are -1 in `kept` were dropped after that.
LayerResult oracle_layer(const LayerCase& layer, const moe::Routing& routing,
                         const moe::Routing* kept = nullptr);

/// sum of dy * y + balance loss + z-loss, of the same.
double oracle_loss(const LayerCase& layer, const moe::Routing& routing);

}  // namespace annulus::testing
