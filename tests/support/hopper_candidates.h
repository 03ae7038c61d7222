#pragma once

#include "attention/kernels/sm90/tuning.h"

// Tunings of the Hopper forward that may be faster than the default: tests run them on emulated
// blocks, hopper_variants_gpu times them. Each has a line in ANNULUS_HOPPER_CANDIDATES of
// tests/gpu/candidates.cmake, by which it is compiled.
namespace annulus::testing::candidates {

using attn::sm90::Tuning;

inline constexpr Tuning lazy_128{.turns = false, .slack = 8};
inline constexpr Tuning wide_turns_128{
    .tile_keys = 160, .slack = 8, .loader_registers = 24, .consumer_registers = 240};

inline constexpr Tuning three_none_64{.groups = 3,
                                      .stages = 4,
                                      .turns = false,
                                      .slack = 8,
                                      .loader_registers = 32,
                                      .consumer_registers = 160};

inline constexpr Tuning two_96{.tile_keys = 160,
                               .turns = false,
                               .slack = 8,
                               .loader_registers = 24,
                               .consumer_registers = 240};

inline constexpr Tuning turns_192{.tile_keys = 112,
                                  .query_buffers = 1,
                                  .slack = 8,
                                  .loader_registers = 24,
                                  .consumer_registers = 240};
inline constexpr Tuning turns_256{.tile_keys = 80,
                                  .query_buffers = 1,
                                  .slack = 8,
                                  .loader_registers = 24,
                                  .consumer_registers = 240};

// Right, but they tell what takes how long, behind the counter of FLOP (trace.cuh).
inline constexpr Tuning traced_128{.turns = false, .slack = 8, .traced = true};
inline constexpr Tuning traced_wide_128{.tile_keys = 160,
                                        .turns = false,
                                        .slack = 8,
                                        .loader_registers = 24,
                                        .consumer_registers = 240,
                                        .traced = true};
inline constexpr Tuning traced_192{.tile_keys = 112,
                                   .query_buffers = 1,
                                   .turns = false,
                                   .slack = 8,
                                   .loader_registers = 24,
                                   .consumer_registers = 240,
                                   .traced = true};

}  // namespace annulus::testing::candidates

/// X(name, head dim) for each.
#define ANNULUS_HOPPER_CANDIDATES(X) \
  X(lazy, 128)                       \
  X(wide_turns, 128)                 \
  X(three_none, 64)                  \
  X(two, 96)                         \
  X(turns, 192)                      \
  X(turns, 256)
