#pragma once

#include "launch/options/settings.h"

#include <annulus/cost.h>
#include <annulus/moe_layer.h>

#include <cstdint>
#include <string>
#include <vector>

namespace annulus::launch {

/// Where tokens of a benchmark go.
enum class RoutingKind : std::uint8_t {
  router,    ///< where the router sends them
  uniform,   ///< k different experts at random
  balanced,  ///< token t, slot s: expert (t k + s) mod experts
  zipf,      ///< at random, expert e with weight 1 / (e + 1)
  one_hot,   ///< all to experts 0 .. k - 1
  none       ///< nowhere: a dense FFN is the shared experts alone
};

std::string_view name_of(RoutingKind kind);

/// What `bench` runs of a mixture of experts.
struct MoeRequest {
  std::int64_t tokens = 0;  ///< of all ranks
  RoutingKind routing = RoutingKind::uniform;
  std::string router;  ///< its name; empty: none
  std::int64_t shared_experts = 0;
  std::int64_t dense_ffn = 0;  ///< width of the model's dense FFN; without one, of an expert
  CostMode mode = CostMode::corrected;
  std::string mode_source = "default";
  CostPolicy policy = CostPolicy::uniform;
  moe::LayerConfig config;
  moe::LayerOptions options;  ///< without max_tokens
};

/// Throws UsageError where experts would run, or move, on GPUs in a way that is not built, and
/// where there is no GPU.
void refuse_device_experts(const Settings& settings);

/// `shrink` divides widths too, down to 16. Throws UsageError naming the key that is missing or
/// does not fit `world` ranks.
MoeRequest moe_request_of(const Settings& settings, int world, int threads);

/// One FFN that op layer runs beside attention, and how many layers of the model have it.
struct KindRequest {
  LayerKind kind = LayerKind::moe;
  std::int64_t layers = 1;
  MoeRequest ffn;
};

/// Each kind that the model has, dense first. Without `layer_kinds` all layers are moe.
std::vector<KindRequest> kind_requests_of(const Settings& settings, int world, int threads);

}  // namespace annulus::launch
