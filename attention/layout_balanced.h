#pragma once

#include <annulus/layout.h>
#include <annulus/problem.h>

#include <vector>

namespace annulus::attn {

/// Shards of equal token count whose unmasked area is even: the sequence is cut into chunks, every
/// rank starts with neighbouring ones, and the heaviest rank swaps chunks with the lightest until
/// the loads agree; where chunks are too coarse for that, finer ones are tried. Neighbours stay
/// together wherever no swap was needed. `problem` is resolved.
std::vector<Shard> balanced_shards(const Problem& problem, int world);

}  // namespace annulus::attn
