#pragma once

#include "tests/emulate/forward.h"
#include "tests/emulate/problems.h"

#include <vector>

namespace annulus::testing {

/// The same with values of another head dim.
OracleProblem of_dims(OracleProblem problem, std::int64_t dim_v);

/// The emulated forward of the launches, one after the other, is within its bounds of the oracle,
/// writes nothing between rows, zeros where nothing is seen, and counts its FLOPs.
void expect_right(const std::vector<TestLaunch>& chain, const Emulation& emulation = {});
void expect_right(const OracleProblem& p, const Emulation& emulation = {},
                  const TileGrid& grid = kGrid);

}  // namespace annulus::testing
