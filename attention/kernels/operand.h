#pragma once

#include "attention/kernels/params.h"

#include <cstddef>
#include <cstdint>

// Addressing of launch operands, shared by the CPU kernels.
namespace annulus::attn {

/// Index of element 0 of (batch, token, head).
template <typename Pointer>
std::int64_t offset_of(const Operand<Pointer>& operand, std::int64_t batch, std::int64_t token,
                       std::int64_t head) {
  return batch * operand.batch_stride + token * operand.token_stride + head * operand.head_stride;
}

/// Address of element 0 of (batch, token, head).
inline const std::byte* address_of(const Input& operand, std::int64_t batch, std::int64_t token,
                                   std::int64_t head) {
  return static_cast<const std::byte*>(operand.data) +
         offset_of(operand, batch, token, head) * size_of(operand.dtype);
}

/// K, or V, of which a segment's keys are.
template <typename Params>
const Input& keys_of(const Params& p, const KeySegment& segment) {
  if (segment.source == 0) return p.k;
  return p.geometry.sources[static_cast<std::size_t>(segment.source - 1)].k;
}
template <typename Params>
const Input& values_of(const Params& p, const KeySegment& segment) {
  if (segment.source == 0) return p.v;
  return p.geometry.sources[static_cast<std::size_t>(segment.source - 1)].v;
}

/// The same operand, to read from.
inline Input as_input(const Output& operand) {
  return {operand.data, operand.dtype, operand.batch_stride, operand.token_stride,
          operand.head_stride};
}

/// Token of launch row `row`.
inline std::int64_t token_of_row(const AttendGeometry& geometry, std::int64_t row) {
  for (const QuerySegment& segment : geometry.queries) {
    if (row >= segment.row && row < segment.row + segment.count) {
      return segment.token + row - segment.row;
    }
  }
  return 0;
}

inline bool sees(const RowIntervals& intervals, std::int64_t position) {
  for (const KeyInterval& interval : intervals) {
    if (position >= interval.begin && position < interval.end) return true;
  }
  return false;
}

inline std::int64_t kv_head_of(const AttendGeometry& geometry, std::int64_t head) {
  return (geometry.head_offset + head) / geometry.group;
}

}  // namespace annulus::attn
