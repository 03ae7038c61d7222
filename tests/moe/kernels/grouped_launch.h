#pragma once

#include "moe/kernels/sm90/grouped.h"

#include <cstdint>

// The grouped product of moe/kernels/sm90 over host memory: on emulated blocks
// (tests/emulate/moe_grouped.cpp) or on a GPU (tests/gpu/moe_grouped.cpp), which needs no seed.
namespace annulus::testing {

/// Host memory of a call, elements of bf16.
struct GroupedMemory {
  const std::uint16_t* a = nullptr;
  const std::uint16_t* b = nullptr;
  std::uint16_t* c = nullptr;
  std::int64_t a_count = 0, b_count = 0, c_count = 0;
};

/// Of `call`, made from pointers into `memory`. `blocks` 0: as many as there are multiprocessors.
void launch_grouped(const moe::sm90::GroupedCall& call, const GroupedMemory& memory,
                    moe::sm90::Tuning tuning, int band, int blocks, std::uint64_t seed);

/// Does the device have it?
bool may_launch_grouped();

}  // namespace annulus::testing
