#pragma once

#include "tests/gpu/time_kernels.h"

namespace annulus::testing {

/// Prints, for launches of few rows and many keys: microseconds as `hopper` splits them over keys,
/// and as it has them with `deterministic`, whole; and what of memory's bandwidth keys and values
/// are read with, each once. Names as "bf16 128 decode 1 x 32:8 x 131072 batch 8".
void time_decode(const TimeOptions& options);

}  // namespace annulus::testing
