#pragma once

#include <cstddef>
#include <span>

namespace annulus::testing {

/// 0xff in all bytes of memory on a GPU; returns when they are there.
void fill_on_device(std::span<std::byte> memory, int device);

}  // namespace annulus::testing
