#pragma once

#include <annulus/layout.h>

#include <cstdint>
#include <string>
#include <vector>

namespace annulus::launch {

/// Positions [begin, end) and the ranks that own some of them, ascending.
struct OwnedSpan {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::vector<int> ranks;
};

/// The sequence in cells of `cell` positions, neighbours with the same owners joined.
std::vector<OwnedSpan> owned_spans(const std::vector<Shard>& shards, std::int64_t seq,
                                   std::int64_t cell);

/// A colour for each rank that colour-blind eyes can tell apart for up to 8; beyond, neighbours get
/// similar ones.
std::string rank_colour(int rank, int world);

}  // namespace annulus::launch
