#include "moe/router_input.h"

#include <annulus/error.h>

#include <fmt/format.h>

namespace annulus::moe {

std::int64_t tokens_of(const RouterConfig& config, const RouterInput& input) {
  const auto values = static_cast<std::int64_t>(input.logits.size());
  if (values % config.experts != 0) {
    throw InvalidArgument(
        fmt::format("router: {} logits are no multiple of {} experts", values, config.experts));
  }
  const std::int64_t tokens = values / config.experts;
  const auto bias = static_cast<std::int64_t>(input.bias.size());
  if (bias != 0 && config.score != Score::sigmoid) {
    throw InvalidArgument("router: a bias belongs to sigmoid scores; with softmax there is none");
  }
  if (bias != 0 && bias != config.experts) {
    throw InvalidArgument(
        fmt::format("router: bias has {} values, there are {} experts", bias, config.experts));
  }
  const auto padding = static_cast<std::int64_t>(input.padding.size());
  if (padding != 0 && padding != tokens) {
    throw InvalidArgument(
        fmt::format("router: padding has {} values, there are {} tokens", padding, tokens));
  }
  return tokens;
}

}  // namespace annulus::moe
