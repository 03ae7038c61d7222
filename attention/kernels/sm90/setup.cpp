#include "attention/kernels/sm90/setup.h"

#include "attention/kernels/sm90/maps.h"
#include "attention/kernels/sm90/schedule.h"

#include <algorithm>
#include <limits>

namespace annulus::attn::sm90 {

namespace {

constexpr std::int64_t kSectionBytes = std::int64_t{32} << 20;  ///< of some 50 MB of L2
/// A section is what all blocks compute at once: the first to touch keys brings them to L2 for the
/// others, and such first touches are spread over the launch. The last one is longer, so that there
/// are short query tiles for its end.
constexpr std::int64_t kLastWaves = 4;
constexpr std::int64_t kMostInTurn = 8;  ///< key tiles of a head at once
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

/// Key/value heads that the launch reads.
std::int64_t kv_heads_read(const AttendGeometry& g) {
  return g.heads == 0 ? 0 : kv_heads(g) - g.head_offset / g.group;
}

bool suits_copies(const Input& operand, std::int64_t tokens, std::int64_t heads,
                  std::int64_t batch) {
  return aligned(operand) && suits_map(operand.token_stride, tokens) &&
         suits_map(operand.head_stride, heads) && suits_map(operand.batch_stride, batch);
}
bool suits_query_copies(const Input& operand, const AttendGeometry& g) {
  return suits_copies(operand, g.query_tokens, g.heads, g.batch);
}

std::int64_t runs_of(const AttendGeometry& g, std::span<const std::int32_t> begins) {
  return g.tiles.empty() || begins.empty() ? 0 : static_cast<std::int64_t>(begins.size()) - 1;
}

TensorShape shape_of(const Input& operand, std::int64_t dim, std::int64_t tokens,
                     std::int64_t heads, std::int64_t batch) {
  const std::int64_t size = size_of(operand.dtype);
  TensorShape shape{
      .data = operand.data,
      .extents = {static_cast<std::uint64_t>(dim), static_cast<std::uint64_t>(tokens),
                  static_cast<std::uint64_t>(heads), static_cast<std::uint64_t>(batch)}};
  const std::array<std::int64_t, 3> strides{operand.token_stride, operand.head_stride,
                                            operand.batch_stride};
  for (std::size_t i = 0; i < strides.size(); ++i) {
    // Nobody goes from the only one to the next, but the map is checked.
    const std::int64_t elements = shape.extents[i + 1] == 1 ? dim : strides[i];
    shape.strides[i] = static_cast<std::uint64_t>(elements * size);
  }
  return shape;
}

Input as_read(const Output& o) {
  return {o.data, o.dtype, o.batch_stride, o.token_stride, o.head_stride};
}

std::int64_t at_least_1(std::int64_t x) { return std::max<std::int64_t>(1, x); }

Sections sections(std::int64_t heads, std::int64_t size, std::int64_t count) {
  return {static_cast<std::int32_t>(heads), static_cast<std::int32_t>(size),
          static_cast<std::int32_t>(count)};
}

bool known(const AttendGeometry& g, std::int64_t tokens) {
  return (g.tiles.empty() || tokens > 0) && tokens <= kInt;
}

/// K and V of all sources.
template <typename Params>
bool suits_key_copies(const Params& p) {
  const AttendGeometry& g = p.geometry;
  bool good = g.sources_on_host.size() == g.sources.size() && g.sources.size() < kMostSources &&
              known(g, all_key_tokens(g));
  each_key_source(p, [&](std::size_t /*i*/, const KeySource& source) {
    const auto suited = [&](const Input& operand) {
      return operand.dtype == p.q.dtype &&
             suits_copies(operand, source.key_tokens, kv_heads(g), g.batch);
    };
    good = good && suited(source.k) && suited(source.v);
  });
  return good;
}

}  // namespace

std::int64_t all_key_tokens(const AttendGeometry& g) {
  std::int64_t all = g.key_tokens;
  for (const KeySource& source : g.sources_on_host) all += source.key_tokens;
  return all;
}

TensorShape key_shape(const KeySource& source, const AttendGeometry& g) {
  return shape_of(source.k, g.head_dim, source.key_tokens, kv_heads(g), g.batch);
}
TensorShape value_shape(const KeySource& source, const AttendGeometry& g) {
  return shape_of(source.v, g.head_dim_v, source.key_tokens, kv_heads(g), g.batch);
}
TensorShape query_shape(const Input& q, const AttendGeometry& g) {
  return shape_of(q, g.head_dim, g.query_tokens, g.heads, g.batch);
}
TensorShape dout_shape(const Input& dout, const AttendGeometry& g) {
  return shape_of(dout, g.head_dim_v, g.query_tokens, g.heads, g.batch);
}

TensorShape gradient_shape(const Output& dq, const AttendGeometry& g) {
  return shape_of(as_read(dq), g.head_dim, g.query_tokens, g.heads, g.batch);
}

bool suits(const ForwardParams& p) {
  const AttendGeometry& g = p.geometry;
  const bool state = p.resume || !p.finish;
  return g.softmax_scale > 0.0 && (!p.finish || p.out.dtype == p.q.dtype) && aligned(p.q) &&
         (!p.finish || aligned(p.out)) && (!state || aligned(p.state)) && suits_key_copies(p) &&
         items_of(g) <= kInt;
}

bool suits(const BackwardParams& p) {
  const AttendGeometry& g = p.geometry;
  return p.dout.dtype == p.q.dtype && g.softmax_scale > 0.0 && aligned(p.dk) && aligned(p.dv) &&
         suits_query_copies(as_read(p.dq), g) && known(g, g.query_tokens) && suits_key_copies(p) &&
         suits_query_copies(p.q, g) && suits_query_copies(p.dout, g) && key_items_of(g) <= kInt;
}

Sections sections_of(const AttendGeometry& g, int blocks) {
  const std::int64_t heads = g.heads * g.batch;
  const std::int64_t of_kv_head = all_key_tokens(g) * (g.head_dim + g.head_dim_v) * 2;
  const std::int64_t most = at_least_1(kSectionBytes / at_least_1(of_kv_head)) * g.group;
  const std::int64_t wave = at_least_1((blocks - 1) / at_least_1(runs_of(g, g.row_tiles)) + 1);
  const std::int64_t size = std::min(most, wave);
  const std::int64_t last = std::min(most, kLastWaves * wave);
  return sections(heads, size, std::max<std::int64_t>(0, heads - last) / size + 1);
}

Sections key_sections_of(const AttendGeometry& g, int blocks_in_turn) {
  const std::int64_t heads = kv_heads_read(g) * g.batch;
  // Queries and dO in 16 bits, dQ in 32.
  const std::int64_t of_group = g.rows * (4 * g.head_dim + 4 * g.head_dim_v) * g.group;
  const std::int64_t fitting = at_least_1(kSectionBytes / at_least_1(of_group));
  const bool all_see_all = static_cast<std::int64_t>(g.tiles_by_key.size()) ==
                           runs_of(g, g.key_tiles) * runs_of(g, g.row_tiles);
  const std::int64_t size =
      all_see_all ? std::max<std::int64_t>(fitting, blocks_in_turn / kMostInTurn) : fitting;
  return sections(heads, size, (heads + size - 1) / size);
}

std::int64_t items_of(const AttendGeometry& g) {
  return runs_of(g, g.row_tiles) * g.heads * g.batch;
}
std::int64_t key_items_of(const AttendGeometry& g) {
  return runs_of(g, g.key_tiles) * kv_heads_read(g) * g.batch;
}

std::int64_t turn_bytes(const AttendGeometry& g) {
  // As cuda::turn_count, which is of a library that emulation does not have.
  const auto tiles =
      static_cast<std::int64_t>(g.row_tiles.empty() ? g.tiles.size() + 1 : g.row_tiles.size());
  const std::int64_t bytes = g.batch * g.heads * 2 * tiles * 4;
  return (bytes + kCounterBytes - 1) / kCounterBytes * kCounterBytes;
}

int blocks_of(std::int64_t items, int sms, int limit) {
  const int most = limit > 0 ? std::min(limit, sms) : sms;
  return static_cast<int>(std::min<std::int64_t>(items, most));
}

}  // namespace annulus::attn::sm90
