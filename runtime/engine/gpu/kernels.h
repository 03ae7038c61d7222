#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace annulus::engine {

/// One thread that waits until *release is nonzero, or `limit_s` passed.
void launch_gate(const std::uint32_t* release, double limit_s, cudaStream_t stream);

/// Blocks that hold every thread of every SM of the current device.
int full_grid();
/// full_grid() blocks that each raise their word of `arrived` and then wait as a gate does.
void launch_full(std::uint32_t* arrived, const std::uint32_t* release, double limit_s,
                 cudaStream_t stream);

/// One warp that writes a word.
void launch_small(std::uint32_t* word, cudaStream_t stream);

}  // namespace annulus::engine
