#include "attention/kernels/cpu/targets.h"

#include <hwy/highway.h>
#include <hwy/targets.h>

namespace annulus::attn::cpu {

std::vector<std::string> simd_targets() {
  std::vector<std::string> names;
  const std::int64_t usable = HWY_TARGETS & hwy::SupportedTargets();
  // Highway gives better instruction sets lower bits.
  for (int bit = 0; bit < 63; ++bit) {
    const std::int64_t target = std::int64_t{1} << bit;
    if ((usable & target) != 0) names.emplace_back(hwy::TargetName(target));
  }
  return names;
}

}  // namespace annulus::attn::cpu
