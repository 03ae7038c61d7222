#pragma once

#include "attention/kernels/cpu/blocks.h"
#include "attention/kernels/cpu/tally.h"
#include "attention/kernels/operand.h"

#include <cmath>
#include <cstdint>
#include <limits>

// Copies between operands and the workspace: rows in f32, or transposed to [dim][kRows]. Each adds
// the bytes of the operand it touches to the tally.
namespace annulus::attn::cpu {

inline constexpr float kNothing = -std::numeric_limits<float>::infinity();

/// `dim` elements of one head.
template <typename Pointer>
struct HeadOf {
  Operand<Pointer> operand;
  std::int64_t batch = 0;
  std::int64_t head = 0;
  std::int64_t dim = 0;

  std::int64_t offset(std::int64_t token) const { return offset_of(operand, batch, token, head); }
};
using HeadInput = HeadOf<const void*>;
using HeadOutput = HeadOf<void*>;

inline HeadInput as_input(const HeadOutput& head) {
  return {as_input(head.operand), head.batch, head.head, head.dim};
}

template <typename Pointer>
const void* row_address(const HeadOf<Pointer>& head, std::int64_t token) {
  return address_of(Input{head.operand.data, head.operand.dtype, head.operand.batch_stride,
                          head.operand.token_stride, head.operand.head_stride},
                    head.batch, token, head.head);
}

inline float* f32_row(const HeadOutput& head, std::int64_t token) {
  return static_cast<float*>(head.operand.data) + head.offset(token);
}

inline std::int64_t row_bytes(const HeadInput& head) {
  return head.dim * size_of(head.operand.dtype);
}

/// factor * rows of `block`: [rows][pitch(dim)], zeros between dim and its padding.
inline void load_rows(const TileOps& ops, const HeadInput& head, const RowBlock& block,
                      float factor, float* rows, Tally& tally) {
  const std::int64_t stride = pitch(head.dim);
  for (std::int64_t i = 0; i < block.rows; ++i) {
    float* to = rows + i * stride;
    ops.widen(row_address(head, block.tokens[static_cast<std::size_t>(i)]), head.operand.dtype,
              head.dim, factor, to);
    std::fill(to + head.dim, to + padded(head.dim), 0.0F);
  }
  tally.bytes += block.rows * row_bytes(head);
}

/// [dim][kRows] from [rows][pitch(dim)]; zeros between rows and their padding.
inline void to_columns(const TileOps& ops, std::int64_t rows, std::int64_t dim, const float* from,
                       float* columns) {
  ops.transpose({rows, dim, from, pitch(dim), columns, kRows});
  if (rows == padded(rows)) return;
  for (std::int64_t d = 0; d < dim; ++d) {
    std::fill(columns + d * kRows + rows, columns + d * kRows + padded(rows), 0.0F);
  }
}

/// [rows][pitch(dim)] from [dim][kRows].
inline void to_rows(const TileOps& ops, std::int64_t rows, std::int64_t dim, const float* columns,
                    float* to) {
  ops.transpose({dim, rows, columns, kRows, to, pitch(dim)});
}

/// Keys from `token` on: [keys][pitch(dim)].
inline void load_keys(const TileOps& ops, const HeadInput& head, std::int64_t token,
                      std::int64_t keys, float* to, Tally& tally) {
  const std::int64_t stride = pitch(head.dim);
  for (std::int64_t j = 0; j < keys; ++j) {
    ops.widen(row_address(head, token + j), head.operand.dtype, head.dim, 1.0F, to + j * stride);
  }
  tally.bytes += keys * row_bytes(head);
}

/// Keys and values of a span, of whichever source: [keys][pitch(dim)].
template <typename Params>
void load_keys(const TileOps& ops, const Params& p, const KeySpan& keys, std::int64_t batch,
               std::int64_t kv_head, float* to, Tally& tally) {
  const AttendGeometry& g = p.geometry;
  const Input& k = keys_of(p, g.keys[static_cast<std::size_t>(keys.segment)]);
  load_keys(ops, {k, batch, kv_head, g.head_dim}, token_of(g, keys), keys.keys, to, tally);
}
template <typename Params>
void load_values(const TileOps& ops, const Params& p, const KeySpan& keys, std::int64_t batch,
                 std::int64_t kv_head, float* to, Tally& tally) {
  const AttendGeometry& g = p.geometry;
  const Input& v = values_of(p, g.keys[static_cast<std::size_t>(keys.segment)]);
  load_keys(ops, {v, batch, kv_head, g.head_dim_v}, token_of(g, keys), keys.keys, to, tally);
}

/// target[token + j] += values [keys][pitch(dim)].
inline void add_keys(const TileOps& ops, const HeadOutput& target, std::int64_t token,
                     std::int64_t keys, const float* values, Tally& tally) {
  for (std::int64_t j = 0; j < keys; ++j) {
    ops.add(values + j * pitch(target.dim), target.dim, 1.0F, f32_row(target, token + j));
  }
  tally.bytes += 2 * keys * row_bytes(as_input(target));
}

/// Every key of the launch to zero: assigned gradients start so, also where no tile visits.
inline void clear_keys(const AttendGeometry& geometry, const HeadOutput& target, Tally& tally) {
  for (const KeySegment& segment : geometry.keys) {
    for (std::int64_t j = 0; j < segment.count; ++j) {
      std::fill_n(f32_row(target, segment.token + j), target.dim, 0.0F);
    }
    tally.bytes += segment.count * row_bytes(as_input(target));
  }
}

/// target = or += factor * values [dim][kRows]; `rows` is scratch of kRows * pitch(dim).
inline void store_gradient(const TileOps& ops, const HeadOutput& target, const RowBlock& block,
                           const float* values, float factor, bool assign, float* rows,
                           Tally& tally) {
  to_rows(ops, block.rows, target.dim, values, rows);
  for (std::int64_t i = 0; i < block.rows; ++i) {
    float* to = f32_row(target, block.tokens[static_cast<std::size_t>(i)]);
    const float* from = rows + i * pitch(target.dim);
    if (assign) {
      ops.narrow(from, target.dim, factor, DType::f32, to);
    } else {
      ops.add(from, target.dim, factor, to);
    }
  }
  tally.bytes += (assign ? 1 : 2) * block.rows * row_bytes(as_input(target));
}

/// What the backward pass knows of its rows: lse is +inf for one that saw no key, so that
/// P = exp(s - lse) is 0, and so are rows of padding.
inline void load_statistics(const HeadInput& lse, const HeadInput& delta, const RowBlock& block,
                            float* lse_to, float* delta_to, Tally& tally) {
  std::fill_n(lse_to, kRows, -kNothing);
  std::fill_n(delta_to, kRows, 0.0F);
  for (std::int64_t i = 0; i < block.rows; ++i) {
    const std::int64_t token = block.tokens[static_cast<std::size_t>(i)];
    const float value = static_cast<const float*>(lse.operand.data)[lse.offset(token)];
    if (value == kNothing) continue;
    lse_to[i] = value;
    delta_to[i] = static_cast<const float*>(delta.operand.data)[delta.offset(token)];
  }
  tally.bytes += block.rows * 2 * static_cast<std::int64_t>(sizeof(float));
}

/// Continues rows from an earlier launch: where one saw a key its state becomes the accumulator
/// (values [rows][pitch(dim)]), its lse the maximum, and the sum is 1. Others stay as they are.
inline void load_state(const HeadInput& state, const HeadInput& lse, const RowBlock& block,
                       float* values, float* max, float* sum, Tally& tally) {
  for (std::int64_t i = 0; i < block.rows; ++i) {
    const std::int64_t token = block.tokens[static_cast<std::size_t>(i)];
    const float value = static_cast<const float*>(lse.operand.data)[lse.offset(token)];
    if (value == kNothing) continue;
    max[i] = value;
    sum[i] = 1.0F;
    std::copy_n(static_cast<const float*>(row_address(state, token)), state.dim,
                values + i * pitch(state.dim));
  }
  tally.bytes += block.rows * (state.dim + 1) * static_cast<std::int64_t>(sizeof(float));
}

/// values / sum [rows][pitch(dim)] to the output and max + log(sum) to lse; 0 and -inf where the
/// sum is 0.
inline void store_result(const TileOps& ops, const HeadOutput& target, const HeadOutput& lse,
                         const RowBlock& block, const float* values, const float* max,
                         const float* sum, Tally& tally) {
  for (std::int64_t i = 0; i < block.rows; ++i) {
    const std::int64_t token = block.tokens[static_cast<std::size_t>(i)];
    const bool unseen = sum[i] == 0.0F;
    void* to = static_cast<std::byte*>(target.operand.data) +
               target.offset(token) * size_of(target.operand.dtype);
    // A row that saw nothing may hold what is not finite, and 0 times that is no 0.
    if (unseen) {
      std::fill_n(static_cast<std::byte*>(to), row_bytes(as_input(target)), std::byte{0});
    } else {
      ops.narrow(values + i * pitch(target.dim), target.dim, 1.0F / sum[i], target.operand.dtype,
                 to);
    }
    *f32_row(lse, token) = unseen ? kNothing : max[i] + std::log(sum[i]);
  }
  tally.bytes +=
      block.rows * (row_bytes(as_input(target)) + static_cast<std::int64_t>(sizeof(float)));
}

}  // namespace annulus::attn::cpu
