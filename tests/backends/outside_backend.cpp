// A whole back end: the attention formula, a row and a head at a time, in double.
#include "tests/backends/outside_backend.h"

#include "attention/kernels/operand.h"
#include "runtime/base/dtype.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace annulus::testing {
namespace {

using attn::AttendGeometry;
using attn::LaunchContext;
using Values = std::vector<double>;

Values read(const auto& from, std::int64_t b, std::int64_t t, std::int64_t h, std::int64_t n) {
  Values values;
  const std::int64_t at = attn::offset_of(from, b, t, h);
  for (std::int64_t i = at; i < at + n; ++i) values.push_back(load_f64(from.data, from.dtype, i));
  return values;
}

void write(const attn::Output& to, std::int64_t b, std::int64_t t, std::int64_t h,
           const Values& values, bool assign = true) {
  std::int64_t at = attn::offset_of(to, b, t, h);
  for (const double x : values) {
    store_f64(to.data, to.dtype, at, assign ? x : x + load_f64(to.data, to.dtype, at));
    ++at;
  }
}

double dot(const Values& a, const Values& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

void add(Values& to, double factor, const Values& values) {
  for (std::size_t i = 0; i < to.size(); ++i) to[i] += factor * values[i];
}

/// fn(token) for every key of the launch.
void each_key(const AttendGeometry& g, auto&& fn) {
  for (const attn::KeySegment& s : g.keys) {
    for (std::int64_t j = 0; j < s.count; ++j) fn(s.token + j);
  }
}

/// fn(token) for the keys that launch row r sees.
void each_seen(const AttendGeometry& g, std::int64_t r, auto&& fn) {
  for (const attn::Tile& tile : g.tiles) {
    if (r < tile.row || r >= tile.row + tile.rows) continue;
    const attn::KeySegment& s = g.keys[static_cast<std::size_t>(tile.segment)];
    for (std::int64_t j = tile.key; j < tile.key + tile.keys; ++j) {
      const bool seen =
          attn::sees(g.intervals[static_cast<std::size_t>(r)], s.position + j * s.stride);
      if (tile.full || seen) fn(static_cast<std::size_t>(s.token + j));
    }
  }
}

/// One head's keys and values by token, and fn(batch, head, key/value head, k, v) for every head.
void each_head(const auto& p, const LaunchContext& context, std::int64_t widths, auto&& fn) {
  const AttendGeometry& g = p.geometry;
  std::int64_t tokens = 0;
  for (const attn::KeySegment& s : g.keys) tokens = std::max(tokens, s.token + s.count);
  for (std::int64_t i = 0; i < g.batch * g.heads; ++i) {
    for (const attn::Tile& tile : g.tiles) {
      if (context.poll) context.poll();
      if (context.flops != nullptr) *context.flops += 2 * widths * tile.rows * tile.keys;
    }
    const std::int64_t b = i / g.heads, hk = attn::kv_head_of(g, i % g.heads);
    std::vector<Values> k(static_cast<std::size_t>(tokens)), v(k.size());
    each_key(g, [&](std::int64_t t) {
      k[static_cast<std::size_t>(t)] = read(p.k, b, t, hk, g.head_dim);
      v[static_cast<std::size_t>(t)] = read(p.v, b, t, hk, g.head_dim_v);
    });
    fn(b, i % g.heads, hk, k, v);
  }
}

double capped(const AttendGeometry& g, double logit) {
  return g.softcap > 0 ? g.softcap * std::tanh(logit / g.softcap) : logit;
}

void forward(const attn::ForwardParams& p, const LaunchContext& context) {
  const AttendGeometry& g = p.geometry;
  each_head(p, context, g.head_dim + g.head_dim_v, [&](auto b, auto h, auto, auto& k, auto& v) {
    for (std::int64_t r = 0; r < g.rows; ++r) {
      const std::int64_t t = attn::token_of_row(g, r);
      const Values q = read(p.q, b, t, h, g.head_dim);
      double top = p.resume ? read(p.lse, b, t, h, 1)[0] : -HUGE_VAL;
      double sum = top > -HUGE_VAL ? 1.0 : 0.0;
      Values o(static_cast<std::size_t>(g.head_dim_v), 0.0);
      if (sum > 0) o = read(p.state, b, t, h, g.head_dim_v);
      each_seen(g, r, [&](std::size_t key) {
        const double s = capped(g, g.softmax_scale * dot(q, k[key]));
        const double rescale = s > top ? std::exp(top - s) : 1.0;  // exp(-inf) = 0
        top = std::max(top, s);
        for (double& x : o) x *= rescale;
        sum = sum * rescale + std::exp(s - top);
        add(o, std::exp(s - top), v[key]);
      });
      for (double& x : o) x = sum == 0 ? 0.0 : x / sum;
      write(p.finish ? p.out : p.state, b, t, h, o);
      write(p.lse, b, t, h, {sum == 0 ? -HUGE_VAL : top + std::log(sum)});
    }
  });
}

void clear_key_gradients(const attn::BackwardParams& p) {
  const AttendGeometry& g = p.geometry;
  for (std::int64_t i = 0; i < g.batch * g.heads; ++i) {
    each_key(g, [&](std::int64_t t) {
      const std::int64_t b = i / g.heads, hk = attn::kv_head_of(g, i % g.heads);
      write(p.dk, b, t, hk, Values(static_cast<std::size_t>(g.head_dim)));
      write(p.dv, b, t, hk, Values(static_cast<std::size_t>(g.head_dim_v)));
    });
  }
}

void backward(const attn::BackwardParams& p, const LaunchContext& context) {
  const AttendGeometry& g = p.geometry;
  if (p.dkv_assign) clear_key_gradients(p);
  const std::int64_t widths = 3 * g.head_dim + 2 * g.head_dim_v;
  each_head(p, context, widths, [&](auto b, auto h, auto hk, auto& k, auto& v) {
    std::vector<Values> dk(k.size(), Values(static_cast<std::size_t>(g.head_dim)));
    std::vector<Values> dv(v.size(), Values(static_cast<std::size_t>(g.head_dim_v)));
    for (std::int64_t r = 0; r < g.rows; ++r) {
      const std::int64_t t = attn::token_of_row(g, r);
      const Values q = read(p.q, b, t, h, g.head_dim), dout = read(p.dout, b, t, h, g.head_dim_v);
      const double lse = read(p.lse, b, t, h, 1)[0], delta = read(p.delta, b, t, h, 1)[0];
      Values dq(q.size());
      each_seen(g, r, [&](std::size_t key) {
        const double s = capped(g, g.softmax_scale * dot(q, k[key]));
        const double slope = g.softcap > 0 ? 1 - (s / g.softcap) * (s / g.softcap) : 1.0;
        const double weight = std::exp(s - lse);
        const double ds = weight * (dot(dout, v[key]) - delta) * slope * g.softmax_scale;
        add(dq, ds, k[key]);
        add(dk[key], ds, q);
        add(dv[key], weight, dout);
      });
      write(p.dq, b, t, h, dq, p.dq_assign);
    }
    each_key(g, [&](std::int64_t t) {
      write(p.dk, b, t, hk, dk[static_cast<std::size_t>(t)], false);
      write(p.dv, b, t, hk, dv[static_cast<std::size_t>(t)], false);
    });
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
  row.workspace_bytes = [](const AttendGeometry&, bool, int) -> std::int64_t { return 0; };
  row.materialized_bytes = [](const AttendGeometry&, bool) -> std::int64_t { return 0; };
  row.forward = forward;
  row.backward = backward;
  return row;
}

}  // namespace annulus::testing
