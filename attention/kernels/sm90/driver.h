#pragma once

#include "attention/kernels/sm90/setup.h"

#include <cuda.h>

// What the host asks of runtime and driver. Throws DeviceError, Unsupported.
namespace annulus::attn::sm90 {

/// Multiprocessors of the current device.
int multiprocessors();

/// Compute capability of the current device, 90 for 9.0; 0 where there is none.
int capability();

/// A map of boxes of `rows` tokens and 64 elements, as layout.cuh has them.
CUtensorMap encode(const TensorShape& shape, DType dtype, int rows);

}  // namespace annulus::attn::sm90
