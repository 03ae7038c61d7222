#pragma once

#include "moe/kernels/sm90/grouped.h"

#include <cuda.h>

namespace annulus::moe::sm90 {

/// Of bf16, boxes of 64 by `rows`, 128-byte swizzle. Throws DeviceError, Unsupported.
CUtensorMap encode(const MapShape& shape, int rows);

/// Multiprocessors of the current device.
int multiprocessors();

}  // namespace annulus::moe::sm90
