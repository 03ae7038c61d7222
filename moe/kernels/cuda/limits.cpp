// What the kernels refuse, and what they are told.
#include "moe/kernels/cuda/limits.h"

#include <annulus/error.h>

#include <fmt/format.h>

namespace annulus::moe::cuda {

namespace {

void require_most(const char* what, std::int64_t value, std::int64_t most) {
  if (value <= most) return;
  throw Unsupported(fmt::format("MoE on a GPU: {} {}: kernels serve up to {}", value, what, most));
}

}  // namespace

RouteParams route_params(const RouterConfig& config) {
  require_most("experts", config.experts, kMostExperts);
  require_most("experts a token", config.k, kMostSlots);
  return {.experts = static_cast<std::int32_t>(config.experts),
          .k = static_cast<std::int32_t>(config.k),
          .score = config.score,
          .renormalize = config.renormalize,
          .scale = static_cast<float>(config.scale),
          .epsilon = config.epsilon,
          .groups = static_cast<std::int32_t>(config.groups),
          .groups_kept = static_cast<std::int32_t>(config.groups_kept),
          .group_top = static_cast<std::int32_t>(config.group_top)};
}

std::int64_t place_room(const PlaceParams& p) {
  return std::int64_t{p.columns()} * p.blocks() + p.ranks;
}

void check(const PlaceParams& p) {
  require_most("experts", p.experts, kMostExperts);
  require_most("ranks", p.ranks, kMostRanks);
  if (p.ranks < 1 || p.experts % p.ranks != 0 || p.source < 0 || p.source >= p.sources ||
      p.alignment < 1 || p.tokens < 0 || p.k < 0) {
    throw InvalidArgument(fmt::format(
        "placement on a GPU: {} tokens x {}, {} experts on {} ranks, source {} of {}, alignment {}",
        p.tokens, p.k, p.experts, p.ranks, p.source, p.sources, p.alignment));
  }
}

void check_slots(std::int64_t k) { require_most("experts a token", k, kMostSlots); }

}  // namespace annulus::moe::cuda
