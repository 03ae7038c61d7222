#pragma once

#include "attention/kernels/sm90/wgmma.cuh"

#include <cstdint>

// wgmma of bf16 with both operands in shared memory, for the widths that the grouped product has.
// A's rows run along the contraction; B's rows do (kAcross false: weights [n][k]) or lie across it
// (true: [k][n]).
namespace annulus::moe::sm90 {

#define ANNULUS_PRODUCT(kSums, columns, across, b_across, a_name, b_name, add_name)            \
  if constexpr (kCount == kSums && kAcross == across) {                                        \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " add_name                                  \
                 ", 0;\n"                                                                      \
                 "wgmma.mma_async.sync.aligned.m64n" columns                                   \
                 "k16.f32.bf16.bf16"                                                           \
                 " {" ANNULUS_NAMES_##kSums "}, " a_name ", " b_name ", p, 1, 1, 0, " b_across \
                                            ";\n}\n"                                           \
                 : ANNULUS_SUMS_##kSums(d)                                                     \
                 : "l"(a), "l"(b), "r"(add ? 1 : 0));                                          \
  }

/// d = or += A B: 64 x 16 and 16 x (2 * kCount).
template <bool kAcross, int kCount>
__device__ __forceinline__ void product(float (&d)[kCount], std::uint64_t a, std::uint64_t b,
                                        bool add) {
  static_assert(kCount == 96 || kCount == 128);
  ANNULUS_PRODUCT(96, "192", false, "0", "%96", "%97", "%98")
  ANNULUS_PRODUCT(96, "192", true, "1", "%96", "%97", "%98")
  ANNULUS_PRODUCT(128, "256", false, "0", "%128", "%129", "%130")
  ANNULUS_PRODUCT(128, "256", true, "1", "%128", "%129", "%130")
}

#undef ANNULUS_PRODUCT

}  // namespace annulus::moe::sm90
