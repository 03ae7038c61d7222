// A whole back end: the attention formula, a row and a head at a time, in double.
#include "tests/backends/outside_backend.h"

#include "attention/kernels/row_walk.h"

#include <algorithm>
#include <cmath>

namespace annulus::testing {
namespace {

using attn::KeyRow, attn::KeyRows, attn::Values, attn::read_row, attn::write_row;

void forward(const attn::ForwardParams& p, const attn::LaunchContext& context) {
  const attn::AttendGeometry& g = p.geometry;
  attn::each_head(p, context, g.head_dim + g.head_dim_v, [&](auto b, auto h, auto, KeyRows& keys) {
    for (std::int64_t r = 0; r < g.rows; ++r) {
      const std::int64_t t = attn::token_of_row(g, r);
      double top = p.resume ? read_row(p.lse, b, t, h, 1)[0] : -HUGE_VAL;
      double sum = top > -HUGE_VAL ? 1.0 : 0.0;
      Values o(0.0, static_cast<std::size_t>(g.head_dim_v));
      if (sum > 0) o = read_row(p.state, b, t, h, g.head_dim_v);
      const Values q = read_row(p.q, b, t, h, g.head_dim);
      attn::each_seen(g, r, q, keys, [&](const KeyRow& key, double s) {
        const double rescale = s > top ? std::exp(top - s) : 1.0;  // exp(-inf) = 0
        top = std::max(top, s);
        o = rescale * o + std::exp(s - top) * key.v;
        sum = rescale * sum + std::exp(s - top);
      });
      if (sum > 0) o /= sum;
      write_row(p.finish ? p.out : p.state, b, t, h, o);
      write_row(p.lse, b, t, h, {sum > 0 ? top + std::log(sum) : -HUGE_VAL});
    }
  });
}

void backward(const attn::BackwardParams& p, const attn::LaunchContext& context) {
  const attn::AttendGeometry& g = p.geometry;
  const std::int64_t widths = 3 * g.head_dim + 2 * g.head_dim_v;
  attn::each_head(p, context, widths, [&](auto b, auto h, auto hk, KeyRows& keys) {
    for (std::int64_t r = 0; r < g.rows; ++r) {
      const std::int64_t t = attn::token_of_row(g, r);
      const Values q = read_row(p.q, b, t, h, g.head_dim);
      const Values dout = read_row(p.dout, b, t, h, g.head_dim_v);
      const double lse = read_row(p.lse, b, t, h, 1)[0], delta = read_row(p.delta, b, t, h, 1)[0];
      Values dq(0.0, q.size());
      attn::each_seen(g, r, q, keys, [&](KeyRow& key, double s) {
        const double slope = g.softcap > 0 ? 1 - (s / g.softcap) * (s / g.softcap) : 1.0;
        const double weight = std::exp(s - lse);
        const double ds = weight * ((dout * key.v).sum() - delta) * slope * g.softmax_scale;
        dq += ds * key.k;
        key.dk += ds * q;
        key.dv += weight * dout;
      });
      write_row(p.dq, b, t, h, dq, p.dq_assign);
    }
    const bool assign = p.dkv_assign && (h == 0 || attn::kv_head_of(g, h - 1) != hk);
    for (const auto& [t, key] : keys) {
      write_row(p.dk, b, t, hk, key.dk, assign);
      write_row(p.dv, b, t, hk, key.dv, assign);
    }
  });
}

}  // namespace

attn::Kernel outside_kernel() { return attn::host_kernel("formula", "outside", forward, backward); }

}  // namespace annulus::testing
