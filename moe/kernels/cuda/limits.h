#pragma once

#include "moe/kernels/cuda/launch.h"

namespace annulus::moe::cuda {

/// Throws Unsupported beyond what the kernels hold, InvalidArgument for what cannot be.
void check(const PlaceParams& params);
void check_slots(std::int64_t k);

}  // namespace annulus::moe::cuda
