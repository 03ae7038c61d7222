#pragma once

#include "attention/kernels/sm90/ptx.cuh"
#include "attention/kernels/sm90/wgmma_operands.h"

#include <cstdint>

// wgmma: products of 64 rows that a warpgroup starts together and waits for by groups. Thread t of
// it holds, of row 16 (t / 32) + t % 32 / 4 + 8 h and column 8 j + 2 (t % 4) + e, element
// d[4 j + 2 h + e]; of left operands in registers, pack a[h] for columns 0 to 7 and a[2 + h] for
// columns 8 to 15 of each 16.
namespace annulus::attn::sm90 {

/// Registers written so far may be read and overwritten by the products that follow.
__device__ __forceinline__ void fence_products() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/// Keeps the compiler from moving uses of `d` across this point.
template <int kCount>
__device__ __forceinline__ void hold(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
template <int kCount>
__device__ __forceinline__ void hold(std::uint32_t (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(d[i])::"memory");
}

/// What `d` held is not needed: else it would be an operand of the product that overwrites it.
template <int kCount>
__device__ __forceinline__ void drop(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "=f"(d[i]));
}

/// Until all but the last kPending groups are done; `d` is what they computed.
template <int kPending, int kCount>
__device__ __forceinline__ void wait_products(float (&d)[kCount]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
  hold(d);
}

template <int kPending>
__device__ __forceinline__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// d of a thread has kSums elements: 2 kSums columns. The instruction names its type, its columns
// and its operands, so that there is one function for each.

/// multiply: d = or += A B, both in shared memory: 64 x 16 and columns x 16, rows along the
/// contraction.
#define ANNULUS_MULTIPLY(Type, type, kSums, columns, a_name, b_name, add_name)                 \
  __device__ __forceinline__ void multiply(float(&d)[kSums], std::uint64_t a, std::uint64_t b, \
                                           bool add, Type) {                                   \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " add_name                                  \
                 ", 0;\n"                                                                      \
                 "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type "." type          \
                 " {" ANNULUS_NAMES_##kSums "}, " a_name ", " b_name ", p, 1, 1, 0, 0;\n}\n"   \
                 : ANNULUS_SUMS_##kSums(d)                                                     \
                 : "l"(a), "l"(b), "r"(add ? 1 : 0));                                          \
  }

/// The same of operands whose rows lie across the contraction: of both (multiply_across, 16 x 64
/// and 16 x columns), of B alone (multiply_along_across) or of A alone (multiply_across_along).
#define ANNULUS_MULTIPLY_ACROSS(name, a_across, b_across, Type, type, kSums, columns, a_name, \
                                b_name, add_name)                                             \
  __device__ __forceinline__ void name(float(&d)[kSums], std::uint64_t a, std::uint64_t b,    \
                                       bool add, Type) {                                      \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " add_name                                 \
                 ", 0;\n"                                                                     \
                 "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type "." type         \
                 " {" ANNULUS_NAMES_##kSums "}, " a_name ", " b_name ", p, 1, 1, " a_across   \
                                            ", " b_across ";\n}\n"                            \
                 : ANNULUS_SUMS_##kSums(d)                                                    \
                 : "l"(a), "l"(b), "r"(add ? 1 : 0));                                         \
  }
#define ANNULUS_MULTIPLY_HALVES(Type, type, kSums, columns, a, b, add)                            \
  ANNULUS_MULTIPLY_ACROSS(multiply_across, "1", "1", Type, type, kSums, columns, a, b, add)       \
  ANNULUS_MULTIPLY_ACROSS(multiply_along_across, "0", "1", Type, type, kSums, columns, a, b, add) \
  ANNULUS_MULTIPLY_ACROSS(multiply_across_along, "1", "0", Type, type, kSums, columns, a, b, add)

/// multiply_add: d = or += A B, A in registers; B in shared memory: 16 x columns, rows across the
/// contraction.
#define ANNULUS_MULTIPLY_ADD(Type, type, kSums, columns, a_names, b_name, add_name)          \
  __device__ __forceinline__ void multiply_add(float(&d)[kSums], const std::uint32_t* a,     \
                                               std::uint64_t b, bool add, Type) {            \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " add_name                                \
                 ", 0;\n"                                                                    \
                 "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type "." type        \
                 " {" ANNULUS_NAMES_##kSums "}, {" a_names "}, " b_name ", p, 1, 1, 1;\n}\n" \
                 : ANNULUS_SUMS_##kSums(d)                                                   \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add ? 1 : 0));    \
  }

#define ANNULUS_PRODUCTS(Type, type)                                                \
  ANNULUS_MULTIPLY(Type, type, 16, "32", "%16", "%17", "%18")                       \
  ANNULUS_MULTIPLY(Type, type, 32, "64", "%32", "%33", "%34")                       \
  ANNULUS_MULTIPLY(Type, type, 40, "80", "%40", "%41", "%42")                       \
  ANNULUS_MULTIPLY(Type, type, 48, "96", "%48", "%49", "%50")                       \
  ANNULUS_MULTIPLY(Type, type, 56, "112", "%56", "%57", "%58")                      \
  ANNULUS_MULTIPLY(Type, type, 64, "128", "%64", "%65", "%66")                      \
  ANNULUS_MULTIPLY(Type, type, 80, "160", "%80", "%81", "%82")                      \
  ANNULUS_MULTIPLY(Type, type, 96, "192", "%96", "%97", "%98")                      \
  ANNULUS_MULTIPLY_HALVES(Type, type, 16, "32", "%16", "%17", "%18")                \
  ANNULUS_MULTIPLY_HALVES(Type, type, 32, "64", "%32", "%33", "%34")                \
  ANNULUS_MULTIPLY_HALVES(Type, type, 48, "96", "%48", "%49", "%50")                \
  ANNULUS_MULTIPLY_HALVES(Type, type, 64, "128", "%64", "%65", "%66")               \
  ANNULUS_MULTIPLY_ADD(Type, type, 32, "64", "%32, %33, %34, %35", "%36", "%37")    \
  ANNULUS_MULTIPLY_ADD(Type, type, 48, "96", "%48, %49, %50, %51", "%52", "%53")    \
  ANNULUS_MULTIPLY_ADD(Type, type, 64, "128", "%64, %65, %66, %67", "%68", "%69")   \
  ANNULUS_MULTIPLY_ADD(Type, type, 96, "192", "%96, %97, %98, %99", "%100", "%101") \
  ANNULUS_MULTIPLY_ADD(Type, type, 128, "256", "%128, %129, %130, %131", "%132", "%133")
ANNULUS_PRODUCTS(Bf16, "bf16")
ANNULUS_PRODUCTS(Half, "f16")

#undef ANNULUS_PRODUCTS
#undef ANNULUS_MULTIPLY
#undef ANNULUS_MULTIPLY_ACROSS
#undef ANNULUS_MULTIPLY_HALVES
#undef ANNULUS_MULTIPLY_ADD

}  // namespace annulus::attn::sm90
