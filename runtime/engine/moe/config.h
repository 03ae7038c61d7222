#pragma once

#include "moe/exchange_plan.h"
#include "moe/experts.h"

#include <annulus/moe_layer.h>

#include <string>

namespace annulus::moe::engine {

/// What the configuration and the options mean on one rank.
struct LayerShape {
  LayerConfig config;
  LayerOptions options;  ///< with the degree decided
  Group group;
  std::int64_t capacity = 0;  ///< rows at once
  bool dedup = false;

  bool on_device() const { return options.backend == "cuda"; }
  std::int64_t local_experts() const { return config.experts / group.ranks; }
  ExpertShape expert_shape() const;
  ExpertShape shared_shape() const;
  ExchangeShape exchange_shape() const;
  std::int64_t row_bytes() const { return config.hidden * size_of(config.dtype); }
};

/// Throws InvalidArgument or Unsupported, with the values, for what cannot be.
LayerShape shape_of(const Mesh& mesh, const LayerConfig& config, const LayerOptions& options);

/// Everything that ranks must have alike; they agree on it, and tags carry a hash of it.
std::string summary_of(const LayerShape& shape, int world);

/// Of the copies of tokens, the share that is left when each travels once a rank: expected number
/// of ranks among k experts drawn without preference, over k.
double expected_copies(std::int64_t experts, std::int64_t k, std::int64_t ranks);

}  // namespace annulus::moe::engine
