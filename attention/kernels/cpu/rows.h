#pragma once

#include "attention/kernels/cpu/blocks.h"
#include "attention/kernels/operand.h"

#include <cstdint>
#include <span>

// Copies between operands and the workspace: rows widened to f32, or transposed to [dim][kRows].
namespace annulus::attn::cpu {

/// Query rows of one head, for one row block: `dim` elements each, a multiple of kPad rows filled.
struct RowSource {
  const Input& operand;
  std::int64_t batch = 0;
  std::int64_t head = 0;
  std::int64_t dim = 0;
};

inline std::int64_t row_offset(const RowSource& source, const RowBlock& block, std::int64_t row) {
  return offset_of(source.operand, source.batch, block.tokens[static_cast<std::size_t>(row)],
                   source.head);
}

/// [rows][padded(dim)], zeros between dim and its padding.
inline void load_rows(const TileOps& ops, const RowSource& source, const RowBlock& block,
                      float* rows) {
  const std::int64_t stride = padded(source.dim);
  for (std::int64_t i = 0; i < block.rows; ++i) {
    const auto* from = address_of(source.operand, source.batch,
                                  block.tokens[static_cast<std::size_t>(i)], source.head);
    ops.widen(from, source.operand.dtype, source.dim, rows + i * stride);
    std::fill(rows + i * stride + source.dim, rows + (i + 1) * stride, 0.0F);
  }
}

/// [dim][kRows] from what load_rows wrote; zeros between rows and their padding.
inline void transpose_rows(const RowBlock& block, std::int64_t dim, const float* rows,
                           float* columns) {
  const std::int64_t stride = padded(dim);
  for (std::int64_t d = 0; d < dim; ++d) {
    float* column = columns + d * kRows;
    for (std::int64_t i = 0; i < block.rows; ++i) column[i] = rows[i * stride + d];
    std::fill(column + block.rows, column + padded(block.rows), 0.0F);
  }
}

/// Keys of one block, compact [keys][dim] in f32.
inline void load_keys(const TileOps& ops, const Input& operand, std::int64_t batch,
                      std::int64_t kv_head, const KeyBlock& part, std::int64_t dim, float* keys) {
  for (std::int64_t j = 0; j < part.keys; ++j) {
    const auto* from = address_of(operand, batch, part.token + j, kv_head);
    ops.widen(from, operand.dtype, dim, keys + j * dim);
  }
}

}  // namespace annulus::attn::cpu
