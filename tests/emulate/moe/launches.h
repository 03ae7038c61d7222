#pragma once

#include "moe/kernels/cuda/launch.h"

#include <cstdint>

// The launches of moe/kernels/cuda on emulated blocks and host memory: the same device code, at
// every width that a GPU's launch may choose.
namespace annulus::testing {

/// `each`: experts a lane, 1, 4, 8 or 16, of which 32 lanes hold all.
void emulated_route(const moe::cuda::RouteParams& params, int each, std::uint64_t seed);
void emulated_count(const moe::cuda::PlaceParams& params, std::uint64_t seed);
void emulated_place(const moe::cuda::PlaceParams& params, std::uint64_t seed);
/// `piece` bytes at a time: 16, 2 or 1.
void emulated_scatter(const moe::cuda::ScatterParams& params, int piece, std::uint64_t seed);
void emulated_copy(const moe::CopyParams& params, int piece, std::uint64_t seed);
/// `wide`: 16 bytes at a time, else an element.
void emulated_combine(const moe::cuda::CombineParams& params, bool wide, std::uint64_t seed);
void emulated_activate(const moe::ActivateParams& params, bool backward, bool wide,
                       std::uint64_t seed);

}  // namespace annulus::testing
