// Backward of attention as the formulas read, on a CPU, in three sweeps: P = exp(S - lse) and
// dS = P * (dP - delta) to memory, then dQ = dS K, then dV = P^T dO and dK = dS^T Q.
// The last one has a key/value head as its unit, so that dK and dV have one writer.
// Workspace: P and dS of every head; per thread Q, Q^T, dO, dO^T, key and score blocks.
#include "attention/kernels/cpu/naive.h"

#include "attention/kernels/cpu/products.h"
#include "attention/kernels/cpu/rows.h"
#include "attention/kernels/cpu/scratch.h"

namespace annulus::attn::cpu {

namespace {

struct BackwardBuffers {
  BackwardBuffers(const AttendGeometry& g, Scratch& scratch)
      : q_rows(scratch.floats(kRows * pitch(g.head_dim))),
        q(scratch.floats(kRows * g.head_dim)),
        dout_rows(scratch.floats(kRows * pitch(g.head_dim_v))),
        dout(scratch.floats(kRows * g.head_dim_v)),
        keys(scratch.floats(kKeys * pitch(std::max(g.head_dim, g.head_dim_v)))),
        p(scratch.floats(kKeys * kRows)),
        ds(scratch.floats(kKeys * kRows)),
        lse(scratch.floats(kRows)),
        delta(scratch.floats(kRows)) {}

  float *q_rows, *q, *dout_rows, *dout, *keys, *p, *ds, *lse, *delta;
};

/// Each sweep for one panel of one head.
class BackwardPanel {
 public:
  BackwardPanel(const BackwardParams& params, const TileOps& ops, const ScoreMatrices& matrices,
                std::int64_t batch, std::int64_t head, std::int64_t index,
                const BackwardBuffers& buffers, Tally& tally)
      : params_(params),
        g_(params.geometry),
        ops_(ops),
        matrices_(matrices),
        batch_(batch),
        head_(head),
        kv_head_(kv_head_of(g_, head)),
        span_(matrices.span(index)),
        p_(matrices.panel(0, batch * g_.heads + head, index)),
        ds_(matrices.panel(1, batch * g_.heads + head, index)),
        w_(buffers),
        tally_(tally) {}

  void scores(const Poller& poll) {
    load_query_rows();
    to_columns(ops_, span_.rows, g_.head_dim, w_.q_rows, w_.q);
    to_columns(ops_, span_.rows, g_.head_dim_v, w_.dout_rows, w_.dout);
    load_statistics({params_.lse, batch_, head_, 1}, {params_.delta, batch_, head_, 1},
                    RowBlock(g_, span_), w_.lse, w_.delta, tally_);
    std::fill_n(p_, matrices_.keys() * kRows, 0.0F);
    std::fill_n(ds_, matrices_.keys() * kRows, 0.0F);
    for_each_part(g_, span_, [&](const PanelPart& at) {
      poll();
      load_keys(ops_, params_, at.keys, batch_, kv_head_, w_.keys, tally_);
      multiply_keys(ops_, at.keys.keys, span_.rows, g_.head_dim, w_.keys, w_.q, w_.p);
      load_values(ops_, params_, at.keys, batch_, kv_head_, w_.keys, tally_);
      multiply_keys(ops_, at.keys.keys, span_.rows, g_.head_dim_v, w_.keys, w_.dout, w_.ds);
      ops_.gradient({.rule = rule_of(g_, at.part),
                     .keys = at.keys.keys,
                     .rows = padded(span_.rows),
                     .p = w_.p,
                     .ds = w_.ds,
                     .lse = w_.lse,
                     .delta = w_.delta});
      copy_part(at, w_.p, p_ + matrices_.place(at.keys));
      copy_part(at, w_.ds, ds_ + matrices_.place(at.keys));
      tally_.flops += 2 * pairs_of(at) * (g_.head_dim + g_.head_dim_v);
    });
    tally_.bytes += 2 * span_.rows * matrices_.keys() * static_cast<std::int64_t>(sizeof(float));
  }

  void query_gradient(const Poller& poll) {
    std::fill_n(w_.q, kRows * g_.head_dim, 0.0F);
    for_each_part(g_, span_, [&](const PanelPart& at) {
      poll();
      load_keys(ops_, params_, at.keys, batch_, kv_head_, w_.keys, tally_);
      const float* ds = only_part(at, ds_ + matrices_.place(at.keys), w_.ds);
      add_weighted_keys(ops_, at.keys.keys, span_.rows, g_.head_dim, w_.keys, ds, w_.q);
      tally_.flops += 2 * pairs_of(at) * g_.head_dim;
      tally_.bytes += pairs_of(at) * static_cast<std::int64_t>(sizeof(float));
    });
    store_gradient(ops_, {params_.dq, batch_, head_, g_.head_dim}, RowBlock(g_, span_), w_.q,
                   static_cast<float>(g_.softmax_scale), params_.dq_assign, w_.q_rows, tally_);
  }

  void key_gradients(const Poller& poll) {
    load_query_rows();
    for_each_part(g_, span_, [&](const PanelPart& at) {
      poll();
      const std::int64_t place = matrices_.place(at.keys);
      add_to(at, p_ + place, w_.dout_rows, {params_.dv, batch_, kv_head_, g_.head_dim_v});
      add_to(at, ds_ + place, w_.q_rows, {params_.dk, batch_, kv_head_, g_.head_dim});
    });
  }

 private:
  void load_query_rows() {
    const RowBlock block(g_, span_);
    load_rows(ops_, {params_.q, batch_, head_, g_.head_dim}, block,
              static_cast<float>(g_.softmax_scale), w_.q_rows, tally_);
    load_rows(ops_, {params_.dout, batch_, head_, g_.head_dim_v}, block, 1.0F, w_.dout_rows,
              tally_);
  }

  void add_to(const PanelPart& at, const float* weights, const float* rows,
              const HeadOutput& target) {
    weigh_rows(ops_, at.keys.keys, at.part.rows - at.first, target.dim, weights + at.first,
               rows + at.first * pitch(target.dim), w_.keys, false);
    add_keys(ops_, target, at.part.token, at.keys.keys, w_.keys, tally_);
    tally_.flops += 2 * pairs_of(at) * target.dim;
    tally_.bytes += pairs_of(at) * static_cast<std::int64_t>(sizeof(float));
  }

  const BackwardParams& params_;
  const AttendGeometry& g_;
  const TileOps& ops_;
  const ScoreMatrices& matrices_;
  std::int64_t batch_, head_, kv_head_;
  RowSpan span_;
  float *p_, *ds_;
  const BackwardBuffers& w_;
  Tally& tally_;
};

/// The whole pass: what the sweeps share.
class Backward {
 public:
  Backward(const BackwardParams& params, const LaunchContext& context)
      : params_(params),
        g_(params.geometry),
        context_(context),
        ops_(tile_ops()),
        workspace_(context, ScoreMatrices::floats(g_), naive_backward_bytes(g_)),
        matrices_(g_, workspace_.shared()) {}

  template <typename Body>
  void sweep_panels(Body&& body) {
    run_units(context_, g_.batch * g_.heads * matrices_.panels(),
              [&](int thread, std::int64_t unit, Tally& tally, const Poller& poll) {
                Scratch scratch = workspace_.share(thread);
                const BackwardBuffers buffers(g_, scratch);
                const std::int64_t head = unit / matrices_.panels();
                BackwardPanel panel(params_, ops_, matrices_, head / g_.heads, head % g_.heads,
                                    unit % matrices_.panels(), buffers, tally);
                body(panel, poll);
              });
  }

  void sweep_key_heads() {
    if (g_.heads == 0) return;
    const std::int64_t first = kv_head_of(g_, 0);
    const std::int64_t heads_kv = kv_head_of(g_, g_.heads - 1) - first + 1;
    run_units(context_, g_.batch * heads_kv,
              [&](int thread, std::int64_t unit, Tally& tally, const Poller& poll) {
                Scratch scratch = workspace_.share(thread);
                const BackwardBuffers buffers(g_, scratch);
                key_head(unit / heads_kv, first + unit % heads_kv, buffers, tally, poll);
              });
  }

 private:
  void key_head(std::int64_t batch, std::int64_t kv_head, const BackwardBuffers& buffers,
                Tally& tally, const Poller& poll) {
    if (params_.dkv_assign) {
      clear_keys(g_, {params_.dk, batch, kv_head, g_.head_dim}, tally);
      clear_keys(g_, {params_.dv, batch, kv_head, g_.head_dim_v}, tally);
    }
    for (std::int64_t head = 0; head < g_.heads; ++head) {
      if (kv_head_of(g_, head) != kv_head) continue;
      for (std::int64_t panel = 0; panel < matrices_.panels(); ++panel) {
        BackwardPanel(params_, ops_, matrices_, batch, head, panel, buffers, tally)
            .key_gradients(poll);
      }
    }
  }

  const BackwardParams& params_;
  const AttendGeometry& g_;
  const LaunchContext& context_;
  TileOps ops_;
  Workspace workspace_;
  ScoreMatrices matrices_;
};

}  // namespace

std::int64_t naive_backward_bytes(const AttendGeometry& geometry) {
  Scratch scratch;
  const BackwardBuffers count(geometry, scratch);
  return scratch.bytes();
}

void naive_backward(const BackwardParams& params, const LaunchContext& context) {
  row_spans(params.geometry);  // for its checks
  Backward pass(params, context);
  pass.sweep_panels([](BackwardPanel& panel, const Poller& poll) { panel.scores(poll); });
  pass.sweep_panels([](BackwardPanel& panel, const Poller& poll) { panel.query_gradient(poll); });
  pass.sweep_key_heads();
}

}  // namespace annulus::attn::cpu
