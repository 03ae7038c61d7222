#pragma once

#include "attention/plan/context.h"

#include <cstdint>
#include <vector>

namespace annulus::attn {

/// Key/value heads, counted from 0, in `count` slices that differ by one at most.
std::vector<HeadRange> equal_slices(std::int32_t heads, std::int32_t count);

/// Slices for a forward whose kernel runs while they arrive: the first, which it waits for, has
/// `first` heads; each later one as many, or as many more as arrive in three quarters of the time
/// that those before still take then. `rows`: query rows, of all heads of a group, that see a key.
std::vector<HeadRange> growing_slices(std::int32_t heads, std::int32_t first, std::int64_t rows);

}  // namespace annulus::attn
