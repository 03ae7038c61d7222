#pragma once

#include "tests/emulate/forward.h"

namespace annulus::testing {

/// What a backward launch has beside Emulation.
struct BackwardEmulation {
  bool deterministic = false;
  std::function<void()> before{};  ///< before each launch of the backward
  /// The same, with what the launch reads.
  std::function<void(const attn::BackwardParams&)> launched{};
  /// What the counters of turns begin with, if it is not 0; a test's late functions may change
  /// them by way of `counters`, where they then are.
  int first_turn = 0;
  std::vector<int>* counters = nullptr;
};

/// The Hopper backward as a kernel of host memory; its forward is the emulated one.
const attn::Kernel& emulated_backward(const Emulation& emulation,
                                      const BackwardEmulation& backward = {});

}  // namespace annulus::testing
