#pragma once

#include "moe/device.h"

#include <cstdint>

namespace annulus::testing {

/// Emulated blocks over host memory with the CPU's products (tests/emulate/moe_device.cpp), or a
/// GPU (tests/gpu/moe_device.cpp). New memory is NaN. Throws Unsupported where it is missing.
moe::Device test_device();
/// Where this thread's test_device() and memory will be, for rank `rank` of `ranks` that address
/// each other's memory: the GPUs in turn. Nothing to do where devices are emulated.
void use_device(int rank, int ranks);
void write(void* device, const void* host, std::int64_t bytes);

}  // namespace annulus::testing
