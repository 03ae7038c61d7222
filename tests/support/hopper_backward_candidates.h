#pragma once

#include "attention/kernels/sm90/backward_tuning.h"

// Tunings of the Hopper backward that hopper_backward_variants_gpu times beside the default: here
// those that tell where time goes, and those that are wrong on purpose, for what is left out costs
// the difference. tests/gpu/candidates.cmake has a line for each, by which it is compiled.
namespace annulus::testing::candidates {

using attn::sm90::BackwardTuning;

// Right, but it tells what takes how long, behind the counter of FLOP (trace.cuh).
inline constexpr BackwardTuning traced{.traced = true};
inline constexpr BackwardTuning traced_turned{.dout_stages = 1,  // 192
                                              .loader_registers = 32,
                                              .consumer_registers = 160,
                                              .traced = true};
inline constexpr BackwardTuning traced_wide{.dout_stages = 1, .traced = true};  // 256

// Wrong.
inline constexpr BackwardTuning no_additions{.adds = false};
inline constexpr BackwardTuning no_additions_turned{
    .adds = false, .dout_stages = 1, .loader_registers = 32, .consumer_registers = 160};
inline constexpr BackwardTuning no_additions_wide{.adds = false, .dout_stages = 1};

}  // namespace annulus::testing::candidates
