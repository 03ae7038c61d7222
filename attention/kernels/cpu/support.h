#pragma once

#include "attention/kernels/dispatch.h"

#include <string>

namespace annulus::attn::cpu {

inline constexpr std::int64_t kMaxHeadDim = 512;  // beyond it the blocks of one thread leave L2

/// Empty, or why the CPU kernels in f32 arithmetic cannot serve.
std::string refuses(const KernelQuery& query);

}  // namespace annulus::attn::cpu
