#pragma once

#include "attention/kernels/dispatch.h"

#include <cstddef>
#include <string>
#include <vector>

// Entry points of the Hopper kernels. They belong to the back end `cuda`, whose table has their
// row.
namespace annulus::attn::sm90 {

/// Why the row `hopper` cannot serve: no variant, or the current device is no Hopper GPU.
std::string hopper_refuses(const KernelQuery& query);

/// Forward: what the tuning that is launched is made for.
TileLimits hopper_tiles(const KernelQuery& query);

/// The schedule of a launch, backward also turns.
std::int64_t hopper_bytes(const AttendGeometry& geometry, bool backward, int threads);

/// The forward's schedule, for AttendGeometry::kept.
std::vector<std::byte> hopper_kept(const AttendGeometry& geometry);

/// On wgmma and TMA where setup.h says that the operands allow it, else flash2.
void hopper_forward(const ForwardParams& params, const LaunchContext& context);

void hopper_backward(const BackwardParams& params, const LaunchContext& context);
/// Kernel::entries
KernelEntries hopper_entries(const KernelQuery& query);

}  // namespace annulus::attn::sm90
