#pragma once

#include "tests/support/launch.h"

#include <cstdint>
#include <vector>

namespace annulus::testing {

/// A problem, and its keys cut at random and dealt out to launches in random order, several
/// segments to some. One launch has the keys that no row sees: the first, one in the middle or the
/// last.
struct ShuffledChain {
  OracleProblem problem;
  std::vector<std::vector<attn::KeySegment>> launches;

  std::vector<TestLaunch> chain(const TileGrid& grid) const;
};

/// Of `like` with a mask, `rows` queries and half as many keys again. By seed: causal, a window,
/// rows of which some see nothing (seed % 3); unseen keys first, middle, last (seed / 3 % 3).
ShuffledChain shuffled_chain(const OracleProblem& like, std::int64_t rows, std::uint64_t seed);

/// Root mean square of `actual` - `truth`.
double root_mean_square(const std::vector<double>& actual, const std::vector<double>& truth);

/// The largest of that of `parts` over that of `one`, of all tensors that are there; where both are
/// no more than what f32 rounds off, it is 1.
double chain_ratio(const OracleResult& parts, const OracleResult& one, const OracleResult& truth);

}  // namespace annulus::testing
