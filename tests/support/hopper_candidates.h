#pragma once

#include "attention/kernels/sm90/tuning.h"

// Tunings of the Hopper forward that may be faster than the default: tests run them on emulated
// blocks, hopper_variants_gpu times them. Each has a line in
// tests/gpu/candidates.cmake, by which it is compiled.
namespace annulus::testing::candidates {

using attn::sm90::default_tuning;
using attn::sm90::Tuning;

constexpr Tuning with_turns(Tuning t, bool turns) {
  t.turns = turns;
  return t;
}
constexpr Tuning traced(Tuning t) {
  t.traced = true;
  return t;
}

/// What is launched up to kShortKeys, here at every length.
inline constexpr Tuning short_128 = default_tuning(128, 128, false, attn::sm90::kShortKeys);
constexpr Tuning holding(Tuning t, int queries) {
  t.query_buffers = queries;
  return t;
}
/// Maxima are found in each step.
constexpr Tuning early(Tuning t) {
  t.late_maxima = false;
  return t;
}
inline constexpr Tuning queries_128 = holding(short_128, 3);
inline constexpr Tuning short_none_128 = with_turns(short_128, false);
inline constexpr Tuning short_early_128 = early(with_turns(short_128, false));
inline constexpr Tuning early_128 = early(default_tuning(128, 128, false));
inline constexpr Tuning wide_turns_128 = with_turns(default_tuning(128, 128, false), true);
inline constexpr Tuning three_none_64 = with_turns(default_tuning(64, 64, false), false);
inline constexpr Tuning early_64 = early(default_tuning(64, 64, false));
inline constexpr Tuning turns_96 = with_turns(default_tuning(96, 96, false), true);
inline constexpr Tuning early_96 = early(turns_96);
inline constexpr Tuning turns_192 = with_turns(default_tuning(192, 192, false), true);
inline constexpr Tuning early_256 = early(default_tuning(256, 256, false));

// Right, but they tell what takes how long, behind the counter of FLOP (trace.cuh).
inline constexpr Tuning traced_128 = traced(short_128);
inline constexpr Tuning traced_wide_128 = traced(early_128);
inline constexpr Tuning traced_192 = traced(default_tuning(192, 192, false));

}  // namespace annulus::testing::candidates

/// X(name, head dim) for those that run on emulated blocks.
#define ANNULUS_HOPPER_CANDIDATES(X) \
  X(short, 128)                      \
  X(short_early, 128)                \
  X(early, 128)                      \
  X(queries, 128)                    \
  X(early, 64)                       \
  X(turns, 96)                       \
  X(early, 96)                       \
  X(turns, 192)                      \
  X(early, 256)
