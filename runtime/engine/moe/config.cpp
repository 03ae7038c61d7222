#include "runtime/engine/moe/config.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace annulus::moe::engine {
namespace {

constexpr std::int64_t kMostLocalExperts = 8192;  // their numbers are 13 bits of a tag

/// Above this, a copy for each expert costs less than expanding what came once.
constexpr double kMostCopies = 0.85;

void require(bool holds, const std::string& text) {
  if (!holds) throw InvalidArgument("moe layer: " + text);
}

void check_config(const LayerConfig& c) {
  require(
      c.hidden >= 1 && c.ffn >= 1 && c.experts >= 1 && c.shared_ffn >= 0,
      fmt::format("hidden {}, ffn {}, experts {}, shared_ffn {}: must be at least 1, shared_ffn "
                  "at least 0",
                  c.hidden, c.ffn, c.experts, c.shared_ffn));
  require(c.k >= 1 && c.k <= c.experts,
          fmt::format("k {} is not in [1, {}], the experts", c.k, c.experts));
  if (c.dtype != DType::f32 && c.dtype != DType::bf16) {
    throw Unsupported(
        fmt::format("moe layer: dtype {} is not built; built: f32, bf16", name_of(c.dtype)));
  }
  require(c.sequences >= 1, fmt::format("sequences {}: must be at least 1", c.sequences));
  require(c.jitter >= 0.0 && c.jitter < 1.0, fmt::format("jitter {}: must be in [0, 1)", c.jitter));
  if (!c.router) {
    require(c.balance_alpha == 0.0 && c.z_beta == 0.0,
            fmt::format("balance_alpha {} and z_beta {} need a router", c.balance_alpha, c.z_beta));
    require(c.jitter == 0.0, fmt::format("jitter {} needs a router", c.jitter));
    return;
  }
  check(*c.router);
  require(c.router->experts == c.experts && c.router->k == c.k,
          fmt::format("a router of {} experts, k {} for a layer of {} experts, k {}",
                      c.router->experts, c.router->k, c.experts, c.k));
}

void check_options(const LayerOptions& o, const LayerConfig& c, int degree, int world) {
  require(degree >= 1 && world % degree == 0,
          fmt::format("expert_degree {} does not divide the world, {}", degree, world));
  require(c.experts % degree == 0,
          fmt::format("{} experts are no multiple of expert_degree {}", c.experts, degree));
  require(c.experts / degree <= kMostLocalExperts,
          fmt::format("{} experts on a rank, at most {}", c.experts / degree, kMostLocalExperts));
  require(o.max_tokens >= 0, fmt::format("max_tokens {}: must be at least 0", o.max_tokens));
  require(std::isfinite(o.capacity_factor) && o.capacity_factor >= 0.0,
          fmt::format("capacity_factor {}: must be 0 (exact) or more", o.capacity_factor));
  require(o.threads >= 1, fmt::format("threads {}: must be at least 1", o.threads));
  require(o.backend == "cpu" || o.backend == "auto" || o.backend == "cuda",
          fmt::format("backend {}: auto, cpu or cuda is allowed", o.backend));
  const bool gpu = o.backend == "cuda";
  require(o.transport == "auto" || (gpu && (o.transport == "peer" || o.transport == "nccl")),
          fmt::format("transport {}: auto{} is allowed", o.transport,
                      gpu ? ", peer or nccl" : ", with back end cpu,"));
}

std::int64_t capacity_rows(const LayerConfig& c, const LayerOptions& o, int degree) {
  if (o.capacity_factor == 0.0) {
    return std::max<std::int64_t>(1, degree * o.max_tokens * std::min(c.k, c.experts / degree));
  }
  const double rows = std::ceil(o.capacity_factor * static_cast<double>(o.max_tokens * c.k));
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(rows));
}

}  // namespace

ExpertShape LayerShape::expert_shape() const {
  return {.activation = config.activation,
          .dtype = config.dtype,
          .hidden = config.hidden,
          .ffn = config.ffn};
}

ExpertShape LayerShape::shared_shape() const {
  ExpertShape shape = expert_shape();
  shape.ffn = config.shared_ffn;
  return shape;
}

ExchangeShape LayerShape::exchange_shape() const {
  return {.group = group,
          .experts = config.experts,
          .k = config.k,
          .row_bytes = row_bytes(),
          .max_tokens = options.max_tokens,
          .capacity = capacity,
          .dedup = dedup};
}

double expected_copies(std::int64_t experts, std::int64_t k, std::int64_t ranks) {
  // A rank is missed with C(experts - local, k) / C(experts, k).
  const std::int64_t others = experts - experts / ranks;
  double missed = 1.0;
  for (std::int64_t i = 0; i < k; ++i) {
    missed *= static_cast<double>(std::max<std::int64_t>(0, others - i)) /
              static_cast<double>(experts - i);
  }
  return static_cast<double>(ranks) * (1.0 - missed) / static_cast<double>(k);
}

LayerShape shape_of(const Mesh& mesh, const LayerConfig& config, const LayerOptions& options) {
  check_config(config);
  LayerShape shape{.config = config, .options = options, .group = {}};
  const int degree = options.expert_degree != 0 ? options.expert_degree : mesh.shape().expert;
  check_options(options, config, degree, mesh.world());
  shape.options.expert_degree = degree;
  shape.group = {
      .first = mesh.rank() / degree * degree, .ranks = degree, .me = mesh.rank() % degree};
  shape.capacity = capacity_rows(config, options, degree);
  shape.dedup = options.dispatch == Dispatch::tokens ||
                (options.dispatch == Dispatch::automatic &&
                 expected_copies(config.experts, config.k, degree) <= kMostCopies);
  shape.dedup = shape.dedup && degree > 1;
  return shape;
}

std::string summary_of(const LayerShape& shape, int world) {
  const LayerConfig& c = shape.config;
  const LayerOptions& o = shape.options;
  std::string text = fmt::format(
      "world {}, expert_degree {}, hidden {}, ffn {}, activation {}, dtype {}, experts {}, k {}, "
      "shared_ffn {}, max_tokens {}, capacity {} rows, {}, recompute {}, drops {} {}, backend {} "
      "by {}",
      world, o.expert_degree, c.hidden, c.ffn, static_cast<int>(c.activation), name_of(c.dtype),
      c.experts, c.k, c.shared_ffn, o.max_tokens, shape.capacity,
      shape.dedup ? "tokens travel" : "rows travel", static_cast<int>(o.recompute),
      c.capacity.factor, static_cast<int>(c.capacity.policy), shape.on_device() ? "cuda" : "cpu",
      o.transport);
  if (c.router) {
    text += fmt::format(
        ", router score {} renormalize {} scale {} groups {}/{}/{}, losses {} {} over {} of {}, "
        "jitter {}",
        static_cast<int>(c.router->score), c.router->renormalize, c.router->scale, c.router->groups,
        c.router->groups_kept, c.router->group_top, c.balance_alpha, c.z_beta,
        static_cast<int>(c.balance_over), c.sequences, c.jitter);
  }
  return text;
}

}  // namespace annulus::moe::engine
