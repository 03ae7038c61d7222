#include "attention/kernels/sm90/setup.h"

#include <algorithm>
#include <limits>

namespace annulus::attn::sm90 {

namespace {

constexpr std::int64_t kSectionBytes = std::int64_t{32} << 20;  ///< of some 50 MB of L2
constexpr std::int64_t kInt = std::numeric_limits<std::int32_t>::max();

/// cuTensorMapEncodeTiled: strides are multiples of 16 bytes below 2^40.
bool suits_map(std::int64_t elements, std::int64_t extent) {
  return extent == 1 || (elements > 0 && elements % 8 == 0 && elements < (std::int64_t{1} << 39));
}

template <typename Pointer>
bool aligned(const Operand<Pointer>& operand) {
  const std::int64_t size = size_of(operand.dtype);
  const auto address = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(operand.data));
  return ((address | operand.batch_stride * size | operand.token_stride * size |
           operand.head_stride * size) &
          15) == 0;
}

std::int64_t kv_heads(const AttendGeometry& g) {
  return g.heads == 0 ? 0 : (g.head_offset + g.heads - 1) / g.group + 1;
}

bool suits_copies(const Input& operand, const AttendGeometry& g) {
  return aligned(operand) && suits_map(operand.token_stride, g.key_tokens) &&
         suits_map(operand.head_stride, kv_heads(g)) && suits_map(operand.batch_stride, g.batch);
}

std::int64_t query_tiles(const AttendGeometry& g) {
  return g.tiles.empty() || g.row_tiles.empty() ? 0
                                                : static_cast<std::int64_t>(g.row_tiles.size()) - 1;
}

}  // namespace

TensorShape tensor_shape(const Input& operand, const AttendGeometry& g) {
  const std::int64_t size = size_of(operand.dtype);
  TensorShape shape{
      .data = operand.data,
      .extents = {static_cast<std::uint64_t>(g.head_dim), static_cast<std::uint64_t>(g.key_tokens),
                  static_cast<std::uint64_t>(kv_heads(g)), static_cast<std::uint64_t>(g.batch)}};
  const std::array<std::int64_t, 3> strides{operand.token_stride, operand.head_stride,
                                            operand.batch_stride};
  for (std::size_t i = 0; i < strides.size(); ++i) {
    // Nobody goes from the only one to the next, but the map is checked.
    const std::int64_t elements = shape.extents[i + 1] == 1 ? g.head_dim : strides[i];
    shape.strides[i] = static_cast<std::uint64_t>(elements * size);
  }
  return shape;
}

bool suits(const ForwardParams& p) {
  const AttendGeometry& g = p.geometry;
  const bool state = p.resume || !p.finish;
  return p.k.dtype == p.q.dtype && p.v.dtype == p.q.dtype && g.head_dim == g.head_dim_v &&
         g.softmax_scale > 0.0 && (!p.finish || p.out.dtype == p.q.dtype) && aligned(p.q) &&
         (!p.finish || aligned(p.out)) && (!state || aligned(p.state)) &&
         (g.tiles.empty() || g.key_tokens > 0) && g.key_tokens <= kInt && suits_copies(p.k, g) &&
         suits_copies(p.v, g) && items_of(g) <= kInt;
}

Sections sections_of(const AttendGeometry& g) {
  const std::int64_t heads = g.heads * g.batch;
  const std::int64_t of_kv_head = g.key_tokens * (g.head_dim + g.head_dim_v) * 2;
  const std::int64_t kv =
      std::max<std::int64_t>(1, kSectionBytes / std::max<std::int64_t>(1, of_kv_head));
  return {static_cast<std::int32_t>(heads),
          static_cast<std::int32_t>(std::min(heads, kv * std::min(g.group, heads)))};
}

std::int64_t items_of(const AttendGeometry& g) { return query_tiles(g) * g.heads * g.batch; }

int blocks_of(std::int64_t items, int sms, int limit) {
  const int most = limit > 0 ? std::min(limit, sms) : sms;
  return static_cast<int>(std::min<std::int64_t>(items, most));
}

}  // namespace annulus::attn::sm90
