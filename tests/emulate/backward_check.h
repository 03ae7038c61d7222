#pragma once

#include "tests/emulate/backward.h"
#include "tests/emulate/problems.h"
#include "tests/support/launch.h"

#include <vector>

namespace annulus::testing {

struct BackwardOptions {
  Emulation emulation{};
  BackwardEmulation backward{};
  bool add_key_gradients = false;
  bool rounded_keys = false;
  /// Rows of q and dout that are NaN for the kernel: such as no tile names and see no key.
  KeyInterval nan_rows{};
};

/// The largest tiles that the backward takes.
TileGrid backward_grid(const OracleProblem& problem);

/// Both passes on emulated blocks.
RunResult run_backward(const std::vector<TestLaunch>& chain, const OracleInputs& inputs,
                       const BackwardOptions& options);

/// The emulated backward of the launches, one after the other, is within its bounds of the oracle,
/// writes nothing between rows, zeros where nothing is seen, and counts its FLOPs.
RunResult expect_right(const std::vector<TestLaunch>& chain, const BackwardOptions& options = {});
RunResult expect_right(const OracleProblem& p, const BackwardOptions& options = {});
RunResult expect_right(const OracleProblem& p, const BackwardOptions& options,
                       const TileGrid& grid);

/// dK and dV in the dtype of the problem are those in f32, rounded once, bit by bit, keys that no
/// tile names included; nothing else differs.
void expect_rounded(const std::vector<TestLaunch>& chain, const BackwardOptions& options = {});
void expect_rounded(const OracleProblem& p, const BackwardOptions& options = {});

}  // namespace annulus::testing
