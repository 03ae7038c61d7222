#pragma once

#include "attention/kernels/dispatch.h"
#include "tests/emulate/machine.h"

#include <functional>
#include <string_view>
#include <vector>

namespace annulus::testing {

/// How the launches that follow are run.
struct Emulation {
  std::uint64_t seed = 1;
  int sms = 2;
  int sm_limit = 0;
  std::vector<std::function<void()>> late{};  ///< machine.h; of every launch
  const std::uint32_t* abort = nullptr;
  bool joined = true;            ///< tile lists, as the executor has them; false: single tiles
  std::string_view candidate{};  ///< as "lazy_128" (hopper_candidates.h); empty: what is launched
};

/// The Hopper forward as a kernel of host memory, with the tiles it wants (Kernel::tiles). No
/// backward.
const attn::Kernel& emulated_hopper(const Emulation& emulation);

/// Into how many parts the last launch split its query tiles, at most.
int emulated_parts();

}  // namespace annulus::testing
