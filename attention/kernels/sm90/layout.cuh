#pragma once

#include <cstdint>

// Matrices in shared memory, as bulk copies with the 128-byte swizzle leave them and tensor cores
// read them: blocks of 64 elements (128 bytes) across and any number of rows, 1024-byte aligned.
// Within a block the 16-byte chunk c of row r lies where chunk c ^ (r % 8) would.
namespace annulus::attn::sm90 {

inline constexpr int kBlockWidth = 64;  ///< elements of a row of a block
inline constexpr int kRowBytes = 128;   ///< the same, in bytes

/// Of a chunk of a block.
__device__ __forceinline__ std::uint32_t place_in_block(int row, int chunk) {
  return static_cast<std::uint32_t>(row * kRowBytes + ((chunk ^ (row & 7)) << 4));
}

/// Of a chunk of a matrix of several blocks, each of `rows` rows.
__device__ __forceinline__ std::uint32_t place_in_matrix(int rows, int row, int chunk) {
  return static_cast<std::uint32_t>((chunk >> 3) * rows * kRowBytes) +
         place_in_block(row, chunk & 7);
}

/// wgmma's matrix descriptor (PTX ISA, "Matrix Descriptor Format"): start, leading and stride
/// offsets in units of 16 bytes, swizzle mode 1 (128 bytes), base offset 0.
__device__ __forceinline__ std::uint64_t descriptor(std::uint32_t start, std::uint32_t leading,
                                                    std::uint32_t stride) {
  return (std::uint64_t{1} << 62) | (static_cast<std::uint64_t>(stride >> 4) << 32) |
         (static_cast<std::uint64_t>(leading >> 4) << 16) | ((start & 0x3FFFFU) >> 4);
}

/// An operand whose rows run along the contraction (Q, K): stride from 8 rows to the next 8; the
/// leading offset is not used. A step of 16 elements is 32 bytes, at 64 the next block begins.
__device__ __forceinline__ std::uint64_t along_rows(std::uint32_t matrix) {
  return descriptor(matrix, 16, 8 * kRowBytes);
}
/// What step k (16 elements each) of a contraction adds to it.
__device__ __forceinline__ std::uint64_t step_along_rows(int k, int rows) {
  return static_cast<std::uint64_t>((k >> 2) * rows * kRowBytes + (k & 3) * 32) >> 4;
}

/// An operand whose rows lie across the contraction (V: a row is a key): leading offset from 64
/// columns to the next 64, stride from 8 keys to the next 8.
__device__ __forceinline__ std::uint64_t across_rows(std::uint32_t matrix, int rows) {
  return descriptor(matrix, static_cast<std::uint32_t>(rows * kRowBytes), 8 * kRowBytes);
}
/// What step k (16 keys each) adds to it.
__device__ __forceinline__ std::uint64_t step_across_rows(int k) {
  return static_cast<std::uint64_t>(k * 16 * kRowBytes) >> 4;
}

}  // namespace annulus::attn::sm90
