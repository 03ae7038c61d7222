#pragma once

#include <annulus/moe.h>

namespace annulus::moe {

/// Tokens of the logits. Throws InvalidArgument, with the sizes, where the input does not fit.
std::int64_t tokens_of(const RouterConfig& config, const RouterInput& input);

inline bool is_padding(const RouterInput& input, std::int64_t token) {
  return !input.padding.empty() && input.padding[static_cast<std::size_t>(token)] != 0;
}

}  // namespace annulus::moe
