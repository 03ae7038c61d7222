#pragma once

namespace annulus::testing {

/// flash2, 16 heads, 16k tokens a launch (32k for 32k), bf16 and f16: a table of TFLOP/s by exact
/// FLOPs (causal: the visible pairs), median of 20, CUDA events.
void time_kernels();

}  // namespace annulus::testing
