#pragma once

#include "tests/engine/distributed.h"

#include <cstdint>
#include <vector>

namespace annulus::testing {

/// Runs each option on every world (each_world) and compares with one rank and with the oracle:
/// error <= 1.1 x that of one rank, beside the rounding of states. 16-bit results also element by
/// element, against what rounding does to each; where P is rounded that takes the place of the
/// largest error (check.cpp says why).
void check(const Problem& problem, const std::vector<RunOptions>& runs, std::uint64_t seed);

/// The same on one given mesh (on_mesh).
void check_on(MeshShape shape, const Problem& problem, const std::vector<RunOptions>& runs,
              std::uint64_t seed);

/// ring, gather and ulysses x every layout.
std::vector<RunOptions> every_algorithm();

/// Each kind of mask and some that join two, for self-attention of `seq` tokens.
std::vector<Mask> every_mask(std::int64_t seq);

}  // namespace annulus::testing
