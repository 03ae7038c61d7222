// A whole back end: the attention formula, a row and a head at a time, in double.
#include "tests/backends/outside_backend.h"

#include "attention/kernels/operand.h"
#include "runtime/base/dtype.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <valarray>

namespace annulus::testing {
namespace {

using attn::AttendGeometry;
using std::int64_t;
using Values = std::valarray<double>;

Values read(const auto& from, int64_t b, int64_t t, int64_t h, int64_t n) {
  Values values(static_cast<std::size_t>(n));
  int64_t at = attn::offset_of(from, b, t, h);
  for (double& x : values) x = load_f64(from.data, from.dtype, at++);
  return values;
}

void write(const attn::Output& to, int64_t b, int64_t t, int64_t h, const Values& values,
           bool assign = true) {
  int64_t at = attn::offset_of(to, b, t, h);
  for (const double x : values) {
    store_f64(to.data, to.dtype, at, assign ? x : x + load_f64(to.data, to.dtype, at));
    ++at;
  }
}

struct Key {
  Values k, v, dk, dv;
};
using Keys = std::map<int64_t, Key>;  ///< by token

/// fn(batch, head, key/value head, its keys) for every head of the launch.
void each_head(const auto& p, const attn::LaunchContext& context, int64_t widths, auto&& fn) {
  const AttendGeometry& g = p.geometry;
  for (int64_t i = 0; i < g.batch * g.heads; ++i) {
    for (const attn::Tile& tile : g.tiles) {
      if (context.poll) context.poll();
      if (context.flops != nullptr) *context.flops += 2 * widths * tile.rows * tile.keys;
    }
    const int64_t b = i / g.heads, h = i % g.heads, hk = attn::kv_head_of(g, h);
    Keys keys;
    for (const attn::KeySegment& s : g.keys) {
      for (int64_t t = s.token; t < s.token + s.count; ++t) {
        const Values k = read(p.k, b, t, hk, g.head_dim), v = read(p.v, b, t, hk, g.head_dim_v);
        keys[t] = {k, v, Values(0.0, k.size()), Values(0.0, v.size())};
      }
    }
    fn(b, h, hk, keys);
  }
}

/// fn(key, score) for the keys that launch row r sees.
void each_seen(const AttendGeometry& g, int64_t r, const Values& q, Keys& keys, auto&& fn) {
  for (const attn::Tile& tile : g.tiles) {
    if (r < tile.row || r >= tile.row + tile.rows) continue;
    const attn::KeySegment& s = g.keys[static_cast<std::size_t>(tile.segment)];
    const RowIntervals& row = g.intervals[static_cast<std::size_t>(r)];
    auto at = keys.find(s.token + tile.key);
    for (int64_t j = tile.key; j < tile.key + tile.keys; ++j, ++at) {
      if (!tile.full && !attn::sees(row, s.position + j * s.stride)) continue;
      Key& key = at->second;
      const double logit = g.softmax_scale * (q * key.k).sum();
      fn(key, g.softcap > 0 ? g.softcap * std::tanh(logit / g.softcap) : logit);
    }
  }
}

void forward(const attn::ForwardParams& p, const attn::LaunchContext& context) {
  const AttendGeometry& g = p.geometry;
  each_head(p, context, g.head_dim + g.head_dim_v, [&](auto b, auto h, auto, Keys& keys) {
    for (int64_t r = 0; r < g.rows; ++r) {
      const int64_t t = attn::token_of_row(g, r);
      double top = p.resume ? read(p.lse, b, t, h, 1)[0] : -HUGE_VAL;
      double sum = top > -HUGE_VAL ? 1.0 : 0.0;
      Values o(0.0, static_cast<std::size_t>(g.head_dim_v));
      if (sum > 0) o = read(p.state, b, t, h, g.head_dim_v);
      each_seen(g, r, read(p.q, b, t, h, g.head_dim), keys, [&](const Key& key, double s) {
        const double rescale = s > top ? std::exp(top - s) : 1.0;  // exp(-inf) = 0
        top = std::max(top, s);
        o = rescale * o + std::exp(s - top) * key.v;
        sum = rescale * sum + std::exp(s - top);
      });
      if (sum > 0) o /= sum;
      write(p.finish ? p.out : p.state, b, t, h, o);
      write(p.lse, b, t, h, {sum > 0 ? top + std::log(sum) : -HUGE_VAL});
    }
  });
}

void backward(const attn::BackwardParams& p, const attn::LaunchContext& context) {
  const AttendGeometry& g = p.geometry;
  const int64_t widths = 3 * g.head_dim + 2 * g.head_dim_v;
  each_head(p, context, widths, [&](auto b, auto h, auto hk, Keys& keys) {
    for (int64_t r = 0; r < g.rows; ++r) {
      const int64_t t = attn::token_of_row(g, r);
      const Values q = read(p.q, b, t, h, g.head_dim), dout = read(p.dout, b, t, h, g.head_dim_v);
      const double lse = read(p.lse, b, t, h, 1)[0], delta = read(p.delta, b, t, h, 1)[0];
      Values dq(0.0, q.size());
      each_seen(g, r, q, keys, [&](Key& key, double s) {
        const double slope = g.softcap > 0 ? 1 - (s / g.softcap) * (s / g.softcap) : 1.0;
        const double weight = std::exp(s - lse);
        const double ds = weight * ((dout * key.v).sum() - delta) * slope * g.softmax_scale;
        dq += ds * key.k;
        key.dk += ds * q;
        key.dv += weight * dout;
      });
      write(p.dq, b, t, h, dq, p.dq_assign);
    }
    const bool assign = p.dkv_assign && (h == 0 || attn::kv_head_of(g, h - 1) != hk);
    for (const auto& [t, key] : keys) {
      write(p.dk, b, t, hk, key.dk, assign);
      write(p.dv, b, t, hk, key.dv, assign);
    }
  });
}

}  // namespace

attn::Kernel outside_kernel() {
  attn::Kernel row;
  row.name = "formula";
  row.backend = "outside";
  row.refuses = [](const attn::KernelQuery& query) -> std::string {
    return std::min(query.head_dim, query.head_dim_v) < 1 ? "serves head dims from 1" : "";
  };
  row.workspace_bytes = [](const AttendGeometry&, bool, int) -> int64_t { return 0; };
  row.materialized_bytes = [](const AttendGeometry&, bool) -> int64_t { return 0; };
  row.forward = forward;
  row.backward = backward;
  return row;
}

}  // namespace annulus::testing
