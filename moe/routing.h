#pragma once

#include <cstdint>
#include <vector>

namespace annulus::moe {

/// Which experts each token of one rank goes to: what a router decides, and all that placement,
/// dispatch and combine know of it. Row-major [tokens][k].
struct Routing {
  std::int64_t tokens = 0;
  std::int64_t k = 0;
  std::int64_t experts = 0;           ///< of the whole expert group, over all ranks
  std::vector<std::int32_t> indices;  ///< expert in [0, experts), or -1: no selection
  std::vector<float> weights;         ///< what the expert's output is multiplied by; 0 where -1
};

}  // namespace annulus::moe
