#pragma once

#include "tests/gpu/kernel_cases.h"

namespace annulus::testing {

/// The tiles that plans of a pass would have for `hopper`. Forward takes those of backward too.
TileGrid own_grid(const OracleProblem& p, bool backward);

/// Head dims that `hopper` serves beside 64 and 128: forward, and for some cases the backward that
/// the launch is given to. Names begin with "dims".
void dims_cases(const Cases& cases);

}  // namespace annulus::testing
