#pragma once

#include "attention/kernels/sm90/backward_tuning.h"

// Tunings of the Hopper backward that may be faster than the default: tests run them on emulated
// blocks, hopper_backward_variants_gpu checks and times them. And some that are wrong on purpose,
// to be timed alone: what is left out costs the difference. Each has a line below, by which it is
// compiled (tests/gpu/candidates.cmake names them again).
namespace annulus::testing::candidates {

using attn::sm90::Additions;
using attn::sm90::BackwardTuning;

inline constexpr BackwardTuning copies{.additions = Additions::copies, .stages = 2};
inline constexpr BackwardTuning boxes{.additions = Additions::boxes, .stages = 2};
inline constexpr BackwardTuning ahead_boxes{
    .additions = Additions::boxes, .ahead = true, .stages = 2};
inline constexpr BackwardTuning delayed{.delayed = true};
inline constexpr BackwardTuning delayed_copies{.additions = Additions::copies, .delayed = true};
inline constexpr BackwardTuning delayed_boxes{.additions = Additions::boxes, .delayed = true};

// Right, but they tell what takes how long, behind the counter of FLOP (trace.cuh).
inline constexpr BackwardTuning traced{.traced = true};
inline constexpr BackwardTuning traced_copies{
    .additions = Additions::copies, .stages = 2, .traced = true};
inline constexpr BackwardTuning traced_delayed{
    .additions = Additions::copies, .delayed = true, .traced = true};
inline constexpr BackwardTuning traced_boxes{
    .additions = Additions::boxes, .stages = 2, .traced = true};
inline constexpr BackwardTuning traced_ahead{
    .additions = Additions::boxes, .ahead = true, .stages = 2, .traced = true};

// Wrong.
inline constexpr BackwardTuning delayed_dense{.additions = Additions::dense, .delayed = true};
inline constexpr BackwardTuning ahead_no_additions{.additions = Additions::none, .ahead = true};
inline constexpr BackwardTuning no_additions{.additions = Additions::none};
inline constexpr BackwardTuning delayed_no_additions{.additions = Additions::none, .delayed = true};

}  // namespace annulus::testing::candidates

/// X(name) for each that is right, of both head dims.
#define ANNULUS_HOPPER_BACKWARD_CANDIDATES(X) \
  X(copies)                                   \
  X(boxes)                                    \
  X(ahead_boxes)                              \
  X(delayed)                                  \
  X(delayed_copies)                           \
  X(delayed_boxes)
