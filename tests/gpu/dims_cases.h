#pragma once

#include "tests/gpu/kernel_cases.h"

namespace annulus::testing {

/// Head dims that `hopper` serves beside 64 and 128: forward, and for some cases the backward that
/// the launch is given to. Names begin with "dims".
void dims_cases(const Cases& cases);

}  // namespace annulus::testing
