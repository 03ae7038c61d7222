#pragma once

#include "attention/kernels/dispatch.h"
#include "attention/kernels/operand.h"
#include "runtime/base/dtype.h"

#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <valarray>

// A launch in host memory, a head and a query row at a time, in double: what a first version of a
// back end outside is written with (docs/backends.md). No speed is meant.
namespace annulus::attn {

using Values = std::valarray<double>;  ///< a row of an operand

/// `n` elements of (batch, token, head).
template <typename Pointer>
Values read_row(const Operand<Pointer>& from, std::int64_t batch, std::int64_t token,
                std::int64_t head, std::int64_t n) {
  Values values(static_cast<std::size_t>(n));
  std::int64_t at = offset_of(from, batch, token, head);
  for (double& x : values) x = load_f64(from.data, from.dtype, at++);
  return values;
}

/// Writes a row, or adds to what is there.
inline void write_row(const Output& to, std::int64_t batch, std::int64_t token, std::int64_t head,
                      const Values& values, bool assign = true) {
  std::int64_t at = offset_of(to, batch, token, head);
  for (const double x : values) {
    store_f64(to.data, to.dtype, at, assign ? x : x + load_f64(to.data, to.dtype, at));
    ++at;
  }
}

/// A key of one head, and its gradients, which begin at 0.
struct KeyRow {
  Values k, v, dk, dv;
};
using KeyRows = std::map<std::int64_t, KeyRow>;  ///< by token

/// fn(batch, head, key/value head, its keys) for each head of the launch. Counts FLOPs of the tiles
/// (2 x widths a pair: head_dim + head_dim_v in the forward) and polls between them.
template <typename Params, typename Fn>
void each_head(const Params& p, const LaunchContext& context, std::int64_t widths, Fn&& fn) {
  const AttendGeometry& g = p.geometry;
  for (std::int64_t i = 0; i < g.batch * g.heads; ++i) {
    for (const Tile& tile : g.tiles) {
      if (context.poll) context.poll();
      if (context.flops != nullptr) *context.flops += 2 * widths * tile.rows * tile.keys;
    }
    const std::int64_t b = i / g.heads, h = i % g.heads, hk = kv_head_of(g, h);
    KeyRows keys;
    for (const KeySegment& s : g.keys) {
      for (std::int64_t t = s.token; t < s.token + s.count; ++t) {
        const Values k = read_row(keys_of(p, s), b, t, hk, g.head_dim);
        const Values v = read_row(values_of(p, s), b, t, hk, g.head_dim_v);
        keys[t] = {k, v, Values(0.0, k.size()), Values(0.0, v.size())};
      }
    }
    fn(b, h, hk, keys);
  }
}

/// fn(key, score) for the keys that launch row `row` sees; scores are scaled and capped.
template <typename Fn>
void each_seen(const AttendGeometry& g, std::int64_t row, const Values& q, KeyRows& keys, Fn&& fn) {
  for (const Tile& tile : g.tiles) {
    if (row < tile.row || row >= tile.row + tile.rows) continue;
    const KeySegment& s = g.keys[static_cast<std::size_t>(tile.segment)];
    const RowIntervals& intervals = g.intervals[static_cast<std::size_t>(row)];
    auto at = keys.find(s.token + tile.key);
    for (std::int64_t j = tile.key; j < tile.key + tile.keys; ++j, ++at) {
      if (!tile.full && !sees(intervals, s.position + j * s.stride)) continue;
      const double logit = g.softmax_scale * (q * at->second.k).sum();
      fn(at->second, g.softcap > 0 ? g.softcap * std::tanh(logit / g.softcap) : logit);
    }
  }
}

/// A row of the dispatch table for functions like these: any head dims, no workspace.
inline Kernel host_kernel(std::string_view name, std::string_view backend,
                          decltype(Kernel::forward) forward, decltype(Kernel::backward) backward) {
  Kernel row;
  row.name = name;
  row.backend = backend;
  row.refuses = [](const KernelQuery& query) -> std::string {
    return query.head_dim < 1 || query.head_dim_v < 1 ? "serves head dims from 1" : "";
  };
  row.workspace_bytes = [](const AttendGeometry&, bool, int) -> std::int64_t { return 0; };
  row.materialized_bytes = [](const AttendGeometry&, bool) -> std::int64_t { return 0; };
  row.forward = forward;
  row.backward = backward;
  return row;
}

}  // namespace annulus::attn
