#pragma once

#include "attention/kernels/sm90/tuning.h"

// Tunings of the Hopper forward that may be faster than the default: tests run them on emulated
// blocks, hopper_variants_gpu times them. Each has a line in ANNULUS_HOPPER_CANDIDATES of
// tests/gpu/hopper_candidates.cmake, by which it is compiled.
namespace annulus::testing::candidates {

using attn::sm90::Tuning;
using attn::sm90::Turns;

inline constexpr Tuning lazy_128{.turns = Turns::none, .slack = 8};
inline constexpr Tuning lazy_items_128{.turns = Turns::items, .slack = 8};
inline constexpr Tuning wide_items_128{.tile_keys = 160,
                                       .turns = Turns::items,
                                       .slack = 8,
                                       .loader_registers = 24,
                                       .consumer_registers = 240};
inline constexpr Tuning wide_steps_128{
    .tile_keys = 160, .slack = 8, .loader_registers = 24, .consumer_registers = 240};

inline constexpr Tuning three_items_64{.groups = 3,
                                       .stages = 4,
                                       .turns = Turns::items,
                                       .slack = 8,
                                       .loader_registers = 32,
                                       .consumer_registers = 160};

}  // namespace annulus::testing::candidates

/// X(name, head dim) for each.
#define ANNULUS_HOPPER_CANDIDATES(X) \
  X(lazy, 128)                       \
  X(lazy_items, 128)                 \
  X(wide_items, 128)                 \
  X(wide_steps, 128)                 \
  X(three_items, 64)
