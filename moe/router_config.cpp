// The routers by name, and what a router may be.
#include <annulus/error.h>
#include <annulus/moe.h>

#include <fmt/format.h>

#include <cmath>

namespace annulus::moe {
namespace {

void check_range(const char* name, std::int64_t value, std::int64_t most, const char* why) {
  if (value < 1 || value > most) {
    throw InvalidArgument(
        fmt::format("router: {} {}: allowed: 1 to {} ({})", name, value, most, why));
  }
}

void check_groups(const RouterConfig& c) {
  check_range("groups", c.groups, c.experts, "the experts");
  if (c.experts % c.groups != 0) {
    throw InvalidArgument(
        fmt::format("router: groups {}: {} experts are no multiple of it", c.groups, c.experts));
  }
  check_range("groups_kept", c.groups_kept, c.groups, "the groups");
  check_range("group_top", c.group_top, c.experts / c.groups, "the experts of a group");
  if (c.score != Score::sigmoid && c.group_top != 1) {
    throw InvalidArgument(
        fmt::format("router: group_top {}: with softmax scores a group is as good as its best (1)",
                    c.group_top));
  }
}

}  // namespace

RouterConfig RouterConfig::mixtral(std::int64_t experts, std::int64_t k) {
  return {.experts = experts, .k = k, .score = Score::softmax_selected};
}

RouterConfig RouterConfig::qwen3(std::int64_t experts, std::int64_t k, bool renormalize) {
  return {.experts = experts, .k = k, .score = Score::softmax_all, .renormalize = renormalize};
}

RouterConfig RouterConfig::deepseek_v3(std::int64_t experts, std::int64_t k) {
  return {.experts = experts,
          .k = k,
          .score = Score::sigmoid,
          .renormalize = true,
          .scale = 2.5,
          .groups = 8,
          .groups_kept = 4,
          .group_top = 2};
}

RouterConfig RouterConfig::switch_transformer(std::int64_t experts) {
  return {.experts = experts, .k = 1, .score = Score::softmax_all};
}

RouterConfig router_named(std::string_view name, std::int64_t experts, std::int64_t top_k) {
  RouterConfig config;
  if (name == "deepseek_v3") {
    config = RouterConfig::deepseek_v3(experts);
  } else if (name == "mixtral") {
    config = RouterConfig::mixtral(experts);
  } else if (name == "qwen3") {
    config = RouterConfig::qwen3(experts);
  } else if (name == "switch") {
    if (top_k > 1) {
      throw InvalidArgument(fmt::format("router switch: k {}: a token has one expert", top_k));
    }
    config = RouterConfig::switch_transformer(experts);
  } else {
    throw InvalidArgument(
        fmt::format("router '{}': must be one of deepseek_v3, mixtral, qwen3, switch", name));
  }
  if (top_k != 0) config.k = top_k;
  return config;
}

void check(const RouterConfig& c) {
  if (c.experts < 1)
    throw InvalidArgument(fmt::format("router: {} experts: must be at least 1", c.experts));
  check_groups(c);
  check_range("k", c.k, c.experts / c.groups * c.groups_kept,
              c.groups_kept == c.groups ? "the experts" : "the experts of the kept groups");
  if (!std::isfinite(c.scale) || c.scale <= 0) {
    throw InvalidArgument(fmt::format("router: scale {}: must be finite and above 0", c.scale));
  }
  if (!std::isfinite(c.epsilon) || c.epsilon < 0) {
    throw InvalidArgument(fmt::format("router: epsilon {}: must be finite, 0 or above", c.epsilon));
  }
}

}  // namespace annulus::moe
