#pragma once

#include "tests/gpu/kernel_cases.h"

namespace annulus::testing {

/// dK and dV in the dtype of the inputs, rounded once. Names begin with "rounded".
void rounded_cases(const Cases& cases);

}  // namespace annulus::testing
