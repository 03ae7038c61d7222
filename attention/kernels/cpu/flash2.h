#pragma once

#include "attention/kernels/dispatch.h"

namespace annulus::attn::cpu {

/// Tiled attention of f32, bf16 and f16 inputs with f32 arithmetic; head dims 1 to 512.
const Kernel& flash2_kernel();

void flash2_forward(const ForwardParams& params, const LaunchContext& context);
void flash2_backward(const BackwardParams& params, const LaunchContext& context);

/// Bytes of workspace that one thread of a pass takes.
std::int64_t flash2_forward_bytes(const AttendGeometry& geometry);
std::int64_t flash2_backward_bytes(const AttendGeometry& geometry);

}  // namespace annulus::attn::cpu
