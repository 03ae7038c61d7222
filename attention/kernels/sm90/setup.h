#pragma once

#include "attention/kernels/cuda/geometry.h"

#include <array>
#include <cstddef>
#include <cstdint>

// What a launch is, on the host and without a GPU: may it be served, what do the tensor maps say,
// in which order is it computed.
namespace annulus::attn::sm90 {

/// An operand as bulk tensor copies see it: dim, token, head, batch. One map serves all segments of
/// a source, for they are ranges of tokens of one tensor.
struct TensorShape {
  const void* data = nullptr;
  std::array<std::uint64_t, 4> extents{};
  std::array<std::uint64_t, 3> strides{};  ///< bytes, of token, head, batch
};
TensorShape key_shape(const KeySource& source, const AttendGeometry& geometry);
TensorShape value_shape(const KeySource& source, const AttendGeometry& geometry);
TensorShape query_shape(const Input& q, const AttendGeometry& geometry);
TensorShape dout_shape(const Input& dout, const AttendGeometry& geometry);
/// Of dq.
TensorShape gradient_shape(const Output& dq, const AttendGeometry& geometry);

/// fn(i, source) for each source of a launch that segments name; the launch's own k and v are 0.
template <typename Params, typename Fn>
void each_key_source(const Params& p, Fn&& fn) {
  const AttendGeometry& g = p.geometry;
  if (g.key_tokens > 0 || g.sources.empty()) fn(std::size_t{0}, KeySource{p.k, p.v, g.key_tokens});
  for (std::size_t i = 0; i < g.sources_on_host.size(); ++i) {
    if (g.sources_on_host[i].key_tokens > 0) fn(i + 1, g.sources_on_host[i]);
  }
}

/// key_tokens of all sources.
std::int64_t all_key_tokens(const AttendGeometry& geometry);

/// Do types, scale, alignment and strides suit? Forward, head dims are not asked for.
bool suits(const ForwardParams& params);
bool suits(const BackwardParams& params);

/// Heads times batches, how many of them make a section, whose keys and values fit in L2, and the
/// number of sections, of which the last has what is left.
struct Sections {
  std::int32_t heads = 0;
  std::int32_t size = 0;
  std::int32_t count = 0;
};
/// On `blocks` blocks.
Sections sections_of(const AttendGeometry& geometry, int blocks);
/// The same of key/value heads, whose groups' queries and their gradients fit. `blocks_in_turn`:
/// blocks of a launch in which key tiles of a head wait for each other at every step, so that what
/// one is late all behind it are: where all rows see all keys, few heads would make long queues. 0:
/// they do not wait.
Sections key_sections_of(const AttendGeometry& geometry, int blocks_in_turn = 0);

/// Query tiles of all heads, or key tiles of all key/value heads; what item indices count to.
std::int64_t items_of(const AttendGeometry& geometry);
std::int64_t key_items_of(const AttendGeometry& geometry);

/// Bytes of a backward's workspace before its schedule: the turns.
std::int64_t turn_bytes(const AttendGeometry& geometry);

/// Blocks of a launch on `sms` multiprocessors.
int blocks_of(std::int64_t items, int sms, int limit);

}  // namespace annulus::attn::sm90
