#pragma once

#include "attention/kernels/dispatch.h"

#include <string>
#include <vector>

namespace annulus::testing {

/// A way to compute the Hopper backward in bf16: "default" or a candidate.
struct HopperBackwardVariant {
  std::string name;
  std::int64_t dim = 0;
  bool right = true;       ///< else it is timed alone
  bool traced = false;     ///< writes how long phases take
  bool uncleared = false;  ///< to be timed with a dQ that is added to
  attn::Kernel kernel{};   ///< with the library's forward; no softcap
};

/// All that are built, the default of each head dim before its others.
std::vector<HopperBackwardVariant> hopper_backward_variants();

}  // namespace annulus::testing
