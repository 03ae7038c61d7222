#pragma once

#include "attention/kernels/cuda/geometry.h"

#include <cstddef>
#include <cstdint>

// Where rows and elements lie and which keys rows see, in plain C++: what every kernel of this back
// end shares, those of attention/kernels/sm90 and their runs on the host (tests/emulate) included.
namespace annulus::attn::cuda {

inline constexpr float kLog2E = 1.4426950408889634F;
inline constexpr float kLn2 = 0.6931471805599453F;
inline constexpr float kInfinity = __builtin_huge_valf();

/// Token of launch row `row`.
__device__ inline std::int64_t token_of_row(const Geometry& g, std::int64_t row) {
  for (int i = 0; i < g.query_count; ++i) {
    const QuerySegment& segment = g.queries[i];
    if (row < segment.row + segment.count && row >= segment.row) {
      return segment.token + row - segment.row;
    }
  }
  return 0;
}

/// Tokens of the launch rows [row, row + rows): looked up one by one only where they are of several
/// segments.
struct RowTokens {
  std::int64_t shift = 0;
  bool one = false;
  __device__ RowTokens(const Geometry& g, std::int64_t row, std::int64_t rows) {
    for (int i = 0; i < g.query_count && !one; ++i) {
      const QuerySegment& segment = g.queries[i];
      one = segment.row <= row && row + rows <= segment.row + segment.count;
      shift = segment.token - segment.row;
    }
  }
  __device__ std::int64_t of(const Geometry& g, std::int64_t row) const {
    return one ? row + shift : token_of_row(g, row);
  }
};

__device__ inline std::int64_t kv_head_of(const Geometry& g, std::int64_t head) {
  return (g.head_offset + head) / g.group;
}

/// K, or V, of which a segment's keys are.
template <typename Params>
__device__ inline Input keys_of(const Geometry& g, const Params& p, std::int32_t source) {
  return source == 0 ? p.k : g.sources[source - 1].k;
}
template <typename Params>
__device__ inline Input values_of(const Geometry& g, const Params& p, std::int32_t source) {
  return source == 0 ? p.v : g.sources[source - 1].v;
}

/// What the counter of a segment of keys (of queries) must hold before [first, first + count) of it
/// are read, of one key/value (query) head.
template <typename Segment>
__device__ inline std::uint32_t needed_for(const Segment& segment, std::int64_t head,
                                           std::int64_t first, int count) {
  if (segment.needed == nullptr) return segment.all;
  const std::uint32_t* blocks =
      segment.needed + head * ((segment.count + kArrivalBlock - 1) / kArrivalBlock);
  std::uint32_t most = 0;
  for (std::int64_t b = first / kArrivalBlock; b * kArrivalBlock < first + count; ++b) {
    if (blocks[b] > most) most = blocks[b];
  }
  return most;
}

/// Query heads [first, last) of the launch that read one key/value head.
struct HeadRange {
  int first, last;
};
__device__ inline HeadRange heads_of(const Geometry& g, std::int64_t kv_head) {
  const std::int64_t first = kv_head * g.group - g.head_offset;
  const std::int64_t last = first + g.group;
  return {static_cast<int>(first < 0 ? 0 : first),
          static_cast<int>(last < g.heads ? last : g.heads)};
}

/// Turn counter of half `half` of a query tile.
__device__ inline std::int64_t turn_index(const Geometry& g, int batch, int head, int row_tile,
                                          int half) {
  return ((static_cast<std::int64_t>(batch) * g.heads + head) * g.row_tile_count + row_tile) * 2 +
         half;
}

/// The lowest `n` of 32 bits; n is cut to [0, 32].
__device__ inline std::uint32_t low_bits(int n) {
  return static_cast<std::uint32_t>((std::uint64_t{1} << max(0, min(n, 32))) - 1);
}

/// Keys that a row sees of some consecutive keys: [begin, end) of each interval, as indices.
struct VisibleKeys {
  int begin[2], end[2];
  /// Of the keys first .. first + 31, one bit each.
  __device__ std::uint32_t bits(int first) const {
    return (low_bits(end[0] - first) & ~low_bits(begin[0] - first)) |
           (low_bits(end[1] - first) & ~low_bits(begin[1] - first));
  }
  __device__ bool sees(int key) const {
    return (key >= begin[0] && key < end[0]) || (key >= begin[1] && key < end[1]);
  }
};

/// All of [0, keys), or nothing.
__device__ inline VisibleKeys all_keys(int keys) { return {{0, 0}, {keys, 0}}; }

/// ceil((position - first) / stride) within [0, keys]. The quotient is guessed in f32, right to one
/// or two for the few hundred keys of a tile, and then corrected: a division of 64 bits is a call,
/// and callers have no register to spare.
__device__ inline int key_index(std::int64_t position, std::int64_t first, std::int64_t stride,
                                int keys) {
  const std::int64_t distance = position - first;
  if (distance <= 0) return 0;
  if (distance > (keys - 1) * stride) return keys;
  if (stride == 1) return static_cast<int>(distance);
  int index =
      static_cast<int>(__fdividef(static_cast<float>(distance), static_cast<float>(stride)));
  while (index * stride < distance) ++index;
  while ((index - 1) * stride >= distance) --index;
  return index;
}

/// For `keys` keys whose first is at position `first`. Indices of a key are rounded up: key j is at
/// or after `position` exactly if j >= ceil((position - first) / stride).
__device__ inline VisibleKeys visible_keys(const Geometry& g, std::int64_t row, std::int64_t first,
                                           std::int64_t stride, int keys) {
  VisibleKeys visible;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const KeyInterval interval = g.intervals[2 * row + i];
    visible.begin[i] = key_index(interval.begin, first, stride, keys);
    visible.end[i] = key_index(interval.end, first, stride, keys);
  }
  return visible;
}

template <typename Pointer>
__device__ inline std::int64_t index_of(const Operand<Pointer>& operand, std::int64_t batch,
                                        std::int64_t token, std::int64_t head) {
  return batch * operand.batch_stride + token * operand.token_stride + head * operand.head_stride;
}

__device__ inline float* f32_row(const Output& operand, std::int64_t batch, std::int64_t token,
                                 std::int64_t head) {
  return static_cast<float*>(operand.data) + index_of(operand, batch, token, head);
}

__device__ inline const float* f32_row(const Input& operand, std::int64_t batch, std::int64_t token,
                                       std::int64_t head) {
  return static_cast<const float*>(operand.data) + index_of(operand, batch, token, head);
}

/// Of gradients, which are f32 or of 16 bits.
__device__ inline std::int64_t element_bytes(DType dtype) { return dtype == DType::f32 ? 4 : 2; }
__device__ inline std::byte* row_bytes(const Output& operand, std::int64_t batch,
                                       std::int64_t token, std::int64_t head) {
  return static_cast<std::byte*>(operand.data) +
         index_of(operand, batch, token, head) * element_bytes(operand.dtype);
}

}  // namespace annulus::attn::cuda
