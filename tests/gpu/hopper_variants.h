#pragma once

#include "tests/gpu/variants.h"

namespace annulus::testing {

/// Of the Hopper forward: "default", the default with two kernels before it ("separate"), and
/// candidates. The default of each head dim is before its others.
Variants hopper_variants();

/// Of the backward, with the library's forward: "default", the same with a dQ that is not cleared,
/// and candidates.
Variants hopper_backward_variants();

}  // namespace annulus::testing
