#pragma once

#include "attention/kernels/dispatch.h"
#include "attention/kernels/sm90/split.h"
#include "tests/emulate/machine.h"

#include <functional>
#include <optional>
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
  attn::WaitCount* waited = nullptr;
  bool kept = true;  ///< schedules, where launches take them so; false: made before each launch
  bool flops_assign = false;  ///< LaunchContext, with a kept schedule
  bool joined = true;         ///< tile lists, as the executor has them; false: single tiles
  std::optional<attn::sm90::Split> split{};  ///< none: as launches are split
  bool deterministic = false;                ///< LaunchContext; or else the caller's is
  std::string_view candidate{};  ///< as "early_128" (hopper_candidates.h); empty: what is launched
};

/// The Hopper forward as a kernel of host memory, with the tiles it wants (Kernel::tiles). No
/// backward.
const attn::Kernel& emulated_hopper(const Emulation& emulation);

/// How the last launch was split.
attn::sm90::Split emulated_split();

}  // namespace annulus::testing
