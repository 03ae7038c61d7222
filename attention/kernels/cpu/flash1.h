#pragma once

#include "attention/kernels/dispatch.h"

namespace annulus::attn::cpu {

/// Tiled attention in the loop order of FlashAttention (Dao et al. 2022): keys outside, queries
/// inside. Serves what flash2 serves; to compare with, not to be fast.
const Kernel& flash1_kernel();

void flash1_forward(const ForwardParams& params, const LaunchContext& context);
void flash1_backward(const BackwardParams& params, const LaunchContext& context);

/// Bytes of workspace that one thread of a pass takes, beside O, l and m.
std::int64_t flash1_forward_bytes(const AttendGeometry& geometry);
std::int64_t flash1_backward_bytes(const AttendGeometry& geometry);

/// Floats of O, l and m of one head, kept between key blocks.
std::int64_t flash1_state_floats(const AttendGeometry& geometry);

}  // namespace annulus::attn::cpu
