#pragma once

#include "moe/kernels/cuda/launch_balance.h"

#include <cstdint>

// The launches of moe/kernels/cuda over host memory. The tests of this folder are linked with
// emulated blocks (tests/emulate/moe_launches.cpp) or with a GPU (tests/gpu/moe_launches.cpp),
// which chooses widths itself and needs no seed.
namespace annulus::testing {

/// `each`: experts a lane, 1, 4, 8 or 16, of which 32 lanes hold all.
void launch_route(const moe::cuda::RouteParams& params, int each, std::uint64_t seed);
void launch_route_backward(const moe::cuda::RouteBackwardParams& params, int each,
                           std::uint64_t seed);
/// Counts, then places; `matrix` is given from the start.
void launch_placement(const moe::cuda::PlaceParams& params, std::uint64_t seed);
/// Its halves, where the launches are emulated.
void launch_counts(const moe::cuda::PlaceParams& params, std::uint64_t seed);
void launch_places(const moe::cuda::PlaceParams& params, std::uint64_t seed);
void launch_fetch(const moe::cuda::FetchParams& params, const std::int64_t* rows, int piece,
                  std::uint64_t seed);
void launch_pull(const moe::cuda::PullParams& params, const std::int64_t* rows);
/// `rows`: of each rank's memory. `piece` bytes at a time: 16, 2 or 1.
void launch_scatter(const moe::cuda::ScatterParams& params, const std::int64_t* rows, int piece,
                    std::uint64_t seed);
/// `from_rows`, `to_rows`: of both memories. `piece` 4: a thread a piece.
void launch_copy(const moe::CopyParams& params, std::int64_t from_rows, std::int64_t to_rows,
                 int piece, std::uint64_t seed);
/// `wide`: 16 bytes at a time, else an element.
void launch_combine(const moe::cuda::CombineParams& params, const std::int64_t* rows, bool wide,
                    std::uint64_t seed);
void launch_activate(const moe::ActivateParams& params, bool backward, bool wide,
                     std::uint64_t seed);

void launch_count_losses(const moe::cuda::LossParams& params, int each, std::uint64_t seed);
void launch_add_losses(const moe::cuda::LossParams& params, int each, std::uint64_t seed);
void launch_drop(const moe::cuda::DropParams& params, std::uint64_t seed);
void launch_jitter(const moe::cuda::JitterParams& params, std::uint64_t seed);
void launch_update_bias(const moe::cuda::BiasParams& params);
void launch_split(const moe::cuda::SplitParams& params, std::uint64_t seed);

}  // namespace annulus::testing
