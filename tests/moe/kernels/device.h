#pragma once

#include "moe/device.h"

#include <cstdint>

namespace annulus::testing {

/// Emulated blocks over host memory with the CPU's products (tests/emulate/moe_device.cpp), or a
/// GPU (tests/gpu/moe_device.cpp). New memory is NaN. Throws Unsupported where it is missing.
moe::Device test_device();
void write(void* device, const void* host, std::int64_t bytes);

}  // namespace annulus::testing
