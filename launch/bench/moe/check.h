#pragma once

#include "launch/bench/check.h"
#include "launch/bench/moe/run.h"

namespace annulus::launch {

/// Collective: the results of the last forward and backward against float64. Tokens: outputs,
/// gradients of inputs and of weights of the routing, all of this rank's or a sample. Experts: rows
/// of their gradients, from every rank's tokens, all of this rank's or a sample. The router's
/// gradient only where all tokens are checked. Which experts a token has is taken from the run.
CheckReport check_moe(Mesh& mesh, const MoeRun& run, bool backward, bool sampled);

}  // namespace annulus::launch
