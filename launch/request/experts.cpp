#include "launch/request/problem.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace annulus::launch {

std::vector<LayerGroup> layer_kinds_of(const Settings& settings) {
  if (!settings.has("layer_kinds")) return {};
  std::vector<LayerGroup> groups;
  try {
    groups = parse_layer_kinds(settings.text("layer_kinds"));
  } catch (const InvalidArgument& error) {
    settings.refuse("layer_kinds", error.what());
  }
  const std::int64_t layers = settings.integer("layers");
  const std::int64_t sum = std::accumulate(
      groups.begin(), groups.end(), std::int64_t{0},
      [](std::int64_t total, const LayerGroup& group) { return total + group.count; });
  if (sum != layers) {
    settings.refuse("layer_kinds", fmt::format("has {} layers, the model {}", sum, layers));
  }
  return groups;
}

ExpertShape experts_of(const Settings& settings) {
  ExpertShape moe;
  moe.experts = settings.maybe_integer("experts").value_or(1);
  if (moe.experts == 1) return moe;
  moe.per_token = settings.integer("top_k");
  if (moe.per_token > moe.experts) {
    settings.refuse("top_k",
                    fmt::format("is not allowed; allowed: 1 to {}, the experts", moe.experts));
  }
  moe.ffn = settings.maybe_integer("expert_ffn").value_or(0);
  moe.shared = settings.maybe_integer("shared_experts").value_or(0);
  if (moe.shared > 0) moe.shared_ffn = settings.integer("shared_ffn");
  return moe;
}

CostPolicy policy_of(const Settings& settings) {
  if (settings.text("policy") == "uniform") return CostPolicy::uniform;
  if (settings.given("mode")) {
    settings.refuse("mode",
                    "cannot go with policy = legacy, which takes a mode for each kind of "
                    "layer");
  }
  return CostPolicy::legacy;
}

}  // namespace annulus::launch
