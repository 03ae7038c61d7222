#pragma once

#include <annulus/export.h>
#include <annulus/moe_routing.h>

#include <cstdint>
#include <span>
#include <vector>

namespace annulus::moe {

/// Where rows go. `ranks` ranks share the experts, experts / ranks neighbours each; `sources` ranks
/// hold tokens (as a rule the same ones).
struct PlacementRequest {
  std::int64_t ranks = 1;
  std::int64_t sources = 1;
  std::int64_t source = 0;     ///< whose routing this is
  std::int64_t alignment = 1;  ///< the rows of each expert are rounded up to a multiple
  /// [sources, experts]: count_selections of every source.
  std::span<const std::int64_t> counts;
};

/// Rows of a rank lie by expert; those of an expert by source, then by token. With tokens spread
/// over sources in order, an expert therefore sees them in one order for every number of ranks, and
/// its results are equal bit by bit. A pure function of the routing and the counts: known before
/// any row moves, without atomics.
struct Placement {
  std::int64_t tokens = 0;
  std::int64_t k = 0;
  std::vector<std::int32_t> rank;  ///< [tokens, k] destination; -1: no selection
  std::vector<std::int64_t> row;   ///< [tokens, k] row there; -1: no selection

  std::vector<std::int64_t> expert_first;  ///< [experts] first row, in its rank
  std::vector<std::int64_t> expert_rows;   ///< [experts] rows in use, of all sources
  std::vector<std::int64_t> rank_rows;     ///< [ranks] rows with those that only align

  /// De-duplication: the tokens with at least one expert on rank r, each once and in order, are
  /// unique_tokens[unique_first[r] .. unique_first[r + 1]).
  std::vector<std::int64_t> unique_first;  ///< [ranks + 1]
  std::vector<std::int64_t> unique_tokens;
  std::vector<std::int64_t> unique_of;  ///< [tokens, k] place among its rank's; -1: no selection

  std::vector<std::int64_t> next_row;  ///< room that place() needs; means nothing afterwards
};

/// Fills `placement`; nothing is allocated where it was large enough. Throws InvalidArgument, with
/// the values, where sizes do not fit, experts is no multiple of ranks, or the source's counts are
/// not those of the routing.
ANNULUS_API void place(const Routing& routing, const PlacementRequest& request,
                       Placement& placement);

}  // namespace annulus::moe
