#pragma once

#include "attention/kernels/dispatch.h"

#include <string>
#include <vector>

namespace annulus::testing {

/// A way to compute the Hopper forward in bf16: "default", the default with two kernels before it
/// ("separate"), or a candidate.
struct HopperVariant {
  std::string name;
  std::int64_t dim = 0;
  attn::Kernel kernel{};  ///< with the tile grid it wants; no backward, no softcap
};

/// All that are built, the default of each head dim before its others.
std::vector<HopperVariant> hopper_variants();

}  // namespace annulus::testing
