#pragma once

#include <annulus/export.h>

#include <cstdint>
#include <vector>

namespace annulus::moe {

/// Which experts each token of one rank goes to: what a router decides, and all that placement,
/// dispatch and combine know of it. Row-major [tokens][k].
struct Routing {
  std::int64_t tokens = 0;
  std::int64_t k = 0;
  std::int64_t experts = 0;             ///< of the whole expert group, over all ranks
  std::vector<std::int32_t> indices{};  ///< expert in [0, experts), or -1: no selection
  std::vector<float> weights{};         ///< what the expert's output is multiplied by; 0 where -1
};

/// Throws InvalidArgument, with token, slot and value, where sizes do not fit, an index is outside
/// [-1, experts), a token names an expert twice, or a weight beside -1 is not 0.
ANNULUS_API void check(const Routing& routing);

/// Selections by expert, [experts]: the row of this rank in a count matrix. -1 counts nowhere.
/// `counts` is resized; nothing is allocated where it was large enough.
ANNULUS_API void count_selections(const Routing& routing, std::vector<std::int64_t>& counts);

/// How evenly the experts are used.
struct LoadStatistics {
  std::int64_t selections = 0;
  std::int64_t most = 0;       ///< of one expert
  std::int64_t unused = 0;     ///< experts without a selection
  double max_over_mean = 1.0;  ///< 1 where there is no selection
};
/// `counts` of one rank, or summed over ranks.
ANNULUS_API LoadStatistics load_of(const std::vector<std::int64_t>& counts);

}  // namespace annulus::moe
