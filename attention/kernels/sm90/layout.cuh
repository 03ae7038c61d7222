#pragma once

#include <cstdint>

// Matrices in shared memory, as bulk copies with the 128-byte swizzle leave them and tensor cores
// read them: blocks of 64 elements (128 bytes) across and any number of rows, 1024-byte aligned.
// Within a block the 16-byte chunk c of row r lies where chunk c ^ (r % 8) would.
namespace annulus::attn::sm90 {

inline constexpr int kBlockWidth = 64;  ///< elements of a row of a block
inline constexpr int kRowBytes = 128;   ///< the same, in bytes

/// Of a matrix of this many elements across; of 96 the second is used by half.
template <int kElements>
inline constexpr int kBlocksOf = (kElements + kBlockWidth - 1) / kBlockWidth;

/// The columns of a matrix in kParts equal parts, each of which begins with a block of its own: a
/// part can be an operand by itself, whatever its width.
template <int kElements, int kParts>
struct Columns {
  static constexpr int kPart = kElements / kParts;
  static constexpr int kPartBlocks = kBlocksOf<kPart>;
  static constexpr int kBlocks = kParts * kPartBlocks;
  /// Of a block.
  __device__ __forceinline__ static constexpr int first(int block) {
    return block / kPartBlocks * kPart + block % kPartBlocks * kBlockWidth;
  }
};

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
/// offsets in units of 16 bytes, swizzle mode 1 (128 bytes), base offset 0. Steps along an operand
/// add to the start, which never leaves its 14 bits; so the upper half is a constant, and one
/// 32-bit addition makes a step's descriptor.
struct Matrix {
  std::uint32_t low;
  __device__ __forceinline__ std::uint64_t at(std::uint32_t bytes) const {
    constexpr std::uint64_t kStride = 8 * kRowBytes;  // from 8 rows to the next 8
    return (std::uint64_t{1} << 62) | (kStride >> 4 << 32) | (low + (bytes >> 4));
  }
};
__device__ __forceinline__ Matrix matrix(std::uint32_t start, std::uint32_t leading) {
  return {(leading >> 4 << 16) | ((start & 0x3FFFFU) >> 4)};
}

/// An operand whose rows run along the contraction (Q, K): the leading offset is not used. A step
/// of 16 elements is 32 bytes, at 64 the next block begins.
__device__ __forceinline__ Matrix along_rows(std::uint32_t start) { return matrix(start, 16); }
/// Bytes to step k (16 elements each) of a contraction.
__device__ __forceinline__ std::uint32_t step_along_rows(int k, int rows) {
  return static_cast<std::uint32_t>((k >> 2) * rows * kRowBytes + (k & 3) * 32);
}

/// An operand whose rows lie across the contraction (V: a row is a key): leading offset from 64
/// columns to the next 64.
__device__ __forceinline__ Matrix across_rows(std::uint32_t start, int rows) {
  return matrix(start, static_cast<std::uint32_t>(rows * kRowBytes));
}
/// Bytes to step k (16 keys each).
__device__ __forceinline__ std::uint32_t step_across_rows(int k) {
  return static_cast<std::uint32_t>(k * 16 * kRowBytes);
}

}  // namespace annulus::attn::sm90
