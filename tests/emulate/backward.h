#pragma once

#include "tests/emulate/forward.h"

namespace annulus::testing {

/// What a backward launch has beside Emulation.
struct BackwardEmulation {
  bool deterministic = false;
  /// What the counters of turns begin with, if it is not 0; the test's late functions may change
  /// them by way of `counters`, which is set for the time of a launch.
  int first_turn = 0;
  std::vector<int>* counters = nullptr;
};

/// The Hopper backward as a kernel of host memory; its forward is the emulated one.
const attn::Kernel& emulated_backward(const Emulation& emulation,
                                      const BackwardEmulation& backward = {});

}  // namespace annulus::testing
