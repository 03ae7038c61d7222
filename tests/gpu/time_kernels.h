#pragma once

#include <string>

namespace annulus::testing {

struct TimeOptions {
  std::string kernel = "flash2";  ///< or hopper
  std::string only;               ///< part of "bf16 128 causal 16384"; empty: all
  bool deterministic = false;     ///< backward
  bool forward = false;           ///< that pass alone
  int repeats = 20;  ///< after three that do not count; 1: none before it, for profilers
};

/// One kernel, 16 heads, 16k tokens a launch (32k for 32k), bf16 and f16: a table of TFLOP/s by
/// exact FLOPs (causal: the visible pairs), median, CUDA events.
void time_kernels(const TimeOptions& options);

}  // namespace annulus::testing
