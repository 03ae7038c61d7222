#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

// Tensor-core products and their operands (PTX ISA, mma.m16n8k16 and ldmatrix). With g = lane / 4
// and t = lane % 4 a thread holds, of
//   A (16 x 16)  a0: row g,   columns 2t, 2t+1      a1: row g+8, columns 2t, 2t+1
//                a2: row g,   columns 2t+8, 2t+9    a3: row g+8, columns 2t+8, 2t+9
//   B (16 x 8)   b0: column g, rows 2t, 2t+1        b1: column g, rows 2t+8, 2t+9
//   C (16 x 8)   c0, c1: row g, columns 2t, 2t+1    c2, c3: row g+8, columns 2t, 2t+1
// ldmatrix reads 8 x 8 blocks whose rows are 16 bytes; lane l names row l % 8 of block l / 8, and a
// thread gets row g, columns 2t, 2t+1 of each; with .trans column g, rows 2t, 2t+1.
namespace annulus::attn::cuda {

/// Shared matrices: rows of kCols elements of 16 bits, 16-byte chunk c of row r at c ^ (r % 8), so
/// that eight rows of one chunk lie in different banks. kCols * 2 is a multiple of 128 bytes.
template <int kCols>
__device__ inline std::uint32_t swizzled(std::uint32_t base, int row, int chunk) {
  return base + static_cast<std::uint32_t>(row * (kCols * 2) + ((chunk ^ (row & 7)) << 4));
}

__device__ inline std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ inline void load_blocks(std::uint32_t (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

__device__ inline void load_blocks_transposed(std::uint32_t (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// A 16 x 16 piece of a shared matrix is four blocks, and two orders of them serve all operands:
//   down      (r, c), (r+8, c), (r, c+8), (r+8, c+8)    A of [m][k]; transposed B of [k][n]
//   across    (r, c), (r, c+8), (r+8, c), (r+8, c+8)    B of [n][k]; transposed A of [k][m]
// A thread's place in the piece at (0, 0) is found once; the piece at (row, column) is then one XOR
// and an offset away, for rows and columns of pieces are multiples of 16 (row % 8 is the thread's
// own, and so is the lowest bit of a chunk).
template <int kCols>
__device__ inline std::uint32_t down_place(std::uint32_t base, int lane) {
  return swizzled<kCols>(base, lane & 15, lane >> 4);
}
template <int kCols>
__device__ inline std::uint32_t across_place(std::uint32_t base, int lane) {
  return swizzled<kCols>(base, (lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1);
}

/// Of the piece at (row, column), from that at another whose column has none of the same bits.
template <int kCols>
__device__ inline std::uint32_t piece(std::uint32_t place, int row, int column) {
  return (place ^ static_cast<std::uint32_t>((column & 63) * 2)) +
         static_cast<std::uint32_t>(row * (kCols * 2) + (column >> 6) * 128);
}

__device__ inline void mma(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                           std::uint32_t b1, __nv_bfloat16 /*element*/) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline void mma(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                           std::uint32_t b1, __half /*element*/) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Two floats as a pair of elements, the first in the low half.
__device__ inline std::uint32_t pack(float low, float high, __nv_bfloat16 /*element*/) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

__device__ inline std::uint32_t pack(float low, float high, __half /*element*/) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

/// 16 bytes to shared memory in the background; zeros unless `real`.
__device__ inline void copy16(std::uint32_t to, const void* from, bool real) {
  const int bytes = real ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(bytes)
               : "memory");
}

__device__ inline void copy4(std::uint32_t to, const void* from, bool real) {
  const int bytes = real ? 4 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes)
               : "memory");
}

__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Until at most kLeft groups of this thread are under way.
template <int kLeft>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

}  // namespace annulus::attn::cuda
