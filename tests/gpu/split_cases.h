#pragma once

#include "tests/gpu/kernel_cases.h"

namespace annulus::testing {

/// Launches of few rows and many keys, which `hopper` splits over keys, some with packed heads:
/// forward. Names begin with "split"; those of launches that know their sequence, so that they are
/// split where they are deterministic too, end with "known".
void split_cases(const Cases& cases);

}  // namespace annulus::testing
