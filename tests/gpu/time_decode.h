#pragma once

#include "tests/gpu/time_kernels.h"

namespace annulus::testing {

/// Prints, for launches of few rows and many keys: how `hopper` splits them over keys, microseconds
/// so, without packed heads, whole, and deterministic (how that is split stands before it), and
/// with how many bytes a second keys and values are read, each counted once. Names as "bf16 128
/// decode 1 x 32:8 x 131072 batch 8".
void time_decode(const TimeOptions& options);

}  // namespace annulus::testing
