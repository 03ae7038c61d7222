#pragma once

/// Routing is public: a trainer may bring its own. Both halves of moe/ build on it.
#include <annulus/moe_routing.h>

#include <cstddef>

namespace annulus::moe {

/// Of the pair (token, slot) in indices and weights.
inline std::size_t pair_of(const Routing& routing, std::int64_t token, std::int64_t slot) {
  return static_cast<std::size_t>(token * routing.k + slot);
}

}  // namespace annulus::moe
