#pragma once

#include "tests/gpu/kernel_cases.h"

namespace annulus::testing {

/// Chains of launches over randomly cut keys in random order, some of which no row sees, against
/// float64 and against one launch. Names begin with "hopper chains".
void chain_cases(const Filter& filter, Tally& tally);

}  // namespace annulus::testing
