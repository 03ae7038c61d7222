#include "launch/request/moe.h"

#include "launch/request/problem.h"

#include <fmt/format.h>

#include <algorithm>

namespace annulus::launch {
namespace {

constexpr std::int64_t kLeastWidth = 16;

std::int64_t needed(const Settings& settings, const char* key) {
  if (!settings.has(key)) {
    throw UsageError(fmt::format("{}: required by --op {} (or --model with its experts)",
                                 option_of(key), settings.text("op")));
  }
  return settings.integer(key);
}

std::int64_t width(const Settings& settings, const char* key) {
  const std::int64_t full = needed(settings, key);
  return std::max(std::min(full, kLeastWidth), full / settings.integer("shrink"));
}

RoutingKind routing_of(const Settings& settings) {
  const std::string& name = settings.text("routing");
  for (const RoutingKind kind :
       {RoutingKind::router, RoutingKind::balanced, RoutingKind::zipf, RoutingKind::one_hot}) {
    if (name == name_of(kind)) return kind;
  }
  return RoutingKind::uniform;
}

/// The named router, fitted to these experts.
moe::RouterConfig router_of(const Settings& settings, std::int64_t experts, std::int64_t k) {
  const std::string& name = settings.text("router");
  moe::RouterConfig router = moe::router_named(name, experts, k);
  if (settings.has("groups")) router.groups = settings.integer("groups");
  if (settings.has("groups_kept")) router.groups_kept = settings.integer("groups_kept");
  if (settings.has("renormalize")) router.renormalize = settings.text("renormalize") == "true";
  router.groups_kept = std::min(router.groups, router.groups_kept);
  if (experts % router.groups != 0) {
    settings.refuse(settings.has("groups") ? "groups" : "router",
                    fmt::format("does not fit: {} experts are no multiple of {} groups", experts,
                                router.groups));
  }
  router.group_top = std::min(router.group_top, experts / router.groups);
  return router;
}

moe::Capacity capacity_of(const Settings& settings) {
  moe::Capacity capacity;
  if (settings.text("capacity_factor") != "off") capacity.factor = settings.real("capacity_factor");
  if (settings.text("drop_policy") == "position") capacity.policy = moe::DropPolicy::position;
  return capacity;
}

int expert_degree(const Settings& settings, std::int64_t experts, int world) {
  const std::int64_t degree = settings.integer("expert_degree");
  if (degree > world || world % degree != 0) {
    settings.refuse("expert_degree",
                    fmt::format("does not fit {} ranks; allowed: a divisor of them", world));
  }
  if (experts % degree != 0) {
    settings.refuse("expert_degree",
                    fmt::format("does not fit: {} experts are no multiple of it", experts));
  }
  return static_cast<int>(degree);
}

moe::LayerConfig config_of(const Settings& settings) {
  moe::LayerConfig config;
  const Problem problem = problem_of(settings);
  config.hidden = width(settings, "hidden");
  // Mixtral's experts are as wide as its FFN.
  config.ffn = width(settings, settings.has("expert_ffn") ? "expert_ffn" : "ffn");
  config.activation =
      settings.text("activation") == "gelu" ? moe::Activation::gelu : moe::Activation::swiglu;
  config.dtype = problem.dtype;
  config.experts = needed(settings, "experts");
  config.k = needed(settings, "top_k");
  if (config.dtype == DType::f16) {
    settings.refuse("dtype", "is not built for mixtures of experts; built: f32, bf16");
  }
  if (config.k > config.experts) {
    settings.refuse("top_k",
                    fmt::format("is not allowed; allowed: 1 to {}, the experts", config.experts));
  }
  const std::int64_t shared = settings.maybe_integer("shared_experts").value_or(0);
  if (shared > 0) config.shared_ffn = shared * width(settings, "shared_ffn");
  config.capacity = capacity_of(settings);
  return config;
}

/// A dense FFN is the MLP of a layer's shared experts, in a layer whose only expert nobody selects.
MoeRequest dense_of(const MoeRequest& experts, std::int64_t ffn) {
  MoeRequest dense = experts;
  dense.routing = RoutingKind::none;
  dense.router.clear();
  dense.shared_experts = 1;
  dense.dense_ffn = ffn;
  dense.config.experts = dense.config.k = 1;
  dense.config.ffn = kLeastWidth;
  dense.config.shared_ffn = ffn;
  dense.config.router.reset();
  dense.config.capacity = {};
  dense.options.expert_degree = 1;
  dense.options.capacity_factor = 0;
  dense.options.dispatch = moe::Dispatch::automatic;
  return dense;
}

}  // namespace

std::string_view name_of(RoutingKind kind) {
  switch (kind) {
    case RoutingKind::router:
      return "router";
    case RoutingKind::uniform:
      return "uniform";
    case RoutingKind::balanced:
      return "balanced";
    case RoutingKind::zipf:
      return "zipf";
    case RoutingKind::one_hot:
      return "one_hot";
    case RoutingKind::none:
      return "none";
  }
  return {};
}

void refuse_device_experts(const Settings& settings) {
  const bool layer = settings.text("op") == "layer";  // attention would take the GPU by itself
  const std::string& transport = settings.text("transport");
  if (settings.text("backend") == "cuda") {
    if (transport == "composite") {
      settings.refuse("transport", "is not built for experts; built: auto, peer, nccl");
    }
    (void)backend_of(settings);
    return;
  }
  if (layer && backend_of(settings) == "cuda") {
    settings.refuse("backend", "takes a GPU for attention alone; allowed: cpu, cuda");
  }
  if (transport == "peer" || transport == "nccl" || transport == "composite") {
    settings.refuse("transport",
                    "moves data between GPUs, and experts run on the CPU; allowed: "
                    "auto, local, mpi");
  }
}

MoeRequest moe_request_of(const Settings& settings, int world, int threads) {
  if (settings.integer("tensor_degree") != 1) {
    settings.refuse("tensor_degree", "is not built yet; built: 1");
  }
  MoeRequest request;
  request.config = config_of(settings);
  moe::LayerConfig& config = request.config;
  const Problem problem = problem_of(settings);
  request.tokens = problem.batch * problem.seq;
  request.routing = routing_of(settings);
  request.dense_ffn = settings.has("ffn") ? width(settings, "ffn") : config.ffn;
  request.mode = settings.text("mode") == "original" ? CostMode::original : CostMode::corrected;
  request.mode_source = settings.source("mode");
  request.policy = policy_of(settings);
  request.shared_experts = settings.maybe_integer("shared_experts").value_or(0);
  if (request.routing == RoutingKind::router) {
    if (!settings.has("router")) settings.refuse("routing", "needs router");
    request.router = settings.text("router");
    config.router = router_of(settings, config.experts, config.k);
  }
  moe::LayerOptions& options = request.options;
  options.expert_degree = expert_degree(settings, config.experts, world);
  if (settings.text("receive_factor") != "exact") {
    options.capacity_factor = settings.real("receive_factor");
  }
  const std::string& dispatch = settings.text("dispatch");
  if (dispatch == "rows") options.dispatch = moe::Dispatch::rows;
  if (dispatch == "tokens") options.dispatch = moe::Dispatch::tokens;
  const std::string& recompute = settings.text("recompute");
  if (recompute == "hidden") options.recompute = moe::Recompute::hidden;
  if (recompute == "dispatch") options.recompute = moe::Recompute::dispatch;
  options.threads = threads;
  options.backend = settings.text("backend") == "cuda" ? "cuda" : "cpu";
  const std::string& transport = settings.text("transport");
  if (transport == "peer" || transport == "nccl") options.transport = transport;
  return request;
}

std::vector<KindRequest> kind_requests_of(const Settings& settings, int world, int threads) {
  std::int64_t dense = 0;
  std::int64_t moe = 0;
  const std::vector<LayerGroup> groups = layer_kinds_of(settings);
  for (const LayerGroup& group : groups) {
    (group.kind == LayerKind::dense ? dense : moe) += group.count;
  }
  if (groups.empty()) moe = settings.integer("layers");
  const MoeRequest experts = moe_request_of(settings, world, threads);
  std::vector<KindRequest> kinds;
  if (dense > 0) {
    kinds.push_back({.kind = LayerKind::dense,
                     .layers = dense,
                     .ffn = dense_of(experts, width(settings, "ffn"))});
  }
  if (moe > 0) kinds.push_back({.kind = LayerKind::moe, .layers = moe, .ffn = experts});
  return kinds;
}

}  // namespace annulus::launch
