// Attention as the formula reads, on a CPU, in three sweeps over all heads: S = scale Q K^T, capped
// and masked, to memory; P = softmax(S) to memory; O = P V. Tiles that are not listed stay -inf.
// An earlier launch's state is merged in at the end.
// Workspace: S and P of every head; per thread Q, Q^T, O^T, key and score blocks.
#include "attention/kernels/cpu/naive.h"

#include "attention/kernels/cpu/products.h"
#include "attention/kernels/cpu/rows.h"
#include "attention/kernels/cpu/scratch.h"
#include "attention/kernels/state.h"

namespace annulus::attn::cpu {

namespace {

struct ForwardBuffers {
  ForwardBuffers(const AttendGeometry& g, Scratch& scratch)
      : rows(scratch.floats(kRows * pitch(std::max(g.head_dim, g.head_dim_v)))),
        columns(scratch.floats(kRows * std::max(g.head_dim, g.head_dim_v))),
        keys(scratch.floats(kKeys * pitch(std::max(g.head_dim, g.head_dim_v)))),
        tile(scratch.floats(kKeys * kRows)) {}

  float *rows, *columns, *keys, *tile;
};

/// Each sweep for one panel of one head.
class ForwardPanel {
 public:
  ForwardPanel(const ForwardParams& params, const TileOps& ops, const ScoreMatrices& matrices,
               std::int64_t unit, const ForwardBuffers& buffers, Tally& tally)
      : params_(params),
        g_(params.geometry),
        ops_(ops),
        matrices_(matrices),
        index_(unit % matrices.panels()),
        batch_(unit / matrices.panels() / g_.heads),
        head_(unit / matrices.panels() % g_.heads),
        span_(matrices.span(index_)),
        s_(matrices.panel(0, batch_ * g_.heads + head_, index_)),
        p_(matrices.panel(1, batch_ * g_.heads + head_, index_)),
        max_(matrices.statistics(batch_ * g_.heads + head_, index_)),
        sum_(max_ + kRows),
        w_(buffers),
        tally_(tally) {}

  void scores(const Poller& poll) {
    const HeadInput q{params_.q, batch_, head_, g_.head_dim};
    load_rows(ops_, q, RowBlock(g_, span_), static_cast<float>(g_.softmax_scale), w_.rows, tally_);
    to_columns(ops_, span_.rows, g_.head_dim, w_.rows, w_.columns);
    std::fill_n(s_, matrices_.keys() * kRows, kNothing);
    for_each_part(g_, span_, [&](const PanelPart& at) {
      poll();
      load_keys(ops_, params_, at.keys, batch_, kv_head_of(g_, head_), w_.keys, tally_);
      float* in_panel = s_ + matrices_.place(at.keys);
      float* tile = at.whole ? in_panel : w_.tile;
      multiply_keys(ops_, at.keys.keys, span_.rows, g_.head_dim, w_.keys, w_.columns, tile);
      ops_.score({rule_of(g_, at.part), at.keys.keys, padded(span_.rows), tile});
      if (!at.whole) copy_part(at, tile, in_panel);
      tally_.flops += 2 * pairs_of(at) * g_.head_dim;
    });
    tally_.bytes += matrix_bytes();  // written
  }

  void softmax() {
    std::fill_n(max_, kRows, kNothing);
    std::fill_n(sum_, kRows, 0.0F);
    ops_.softmax({.rule = {},
                  .keys = matrices_.keys(),
                  .rows = padded(span_.rows),
                  .dim = 0,
                  .from = s_,
                  .tile = p_,
                  .row_max = max_,
                  .row_sum = sum_});
    float inverse[kRows];
    for (std::int64_t i = 0; i < kRows; ++i) inverse[i] = sum_[i] == 0.0F ? 0.0F : 1.0F / sum_[i];
    for (std::int64_t j = 0; j < matrices_.keys(); ++j) {
      for (std::int64_t i = 0; i < kRows; ++i) p_[j * kRows + i] *= inverse[i];
    }
    tally_.bytes += 5 * matrix_bytes();  // S read for max and for exp, P written, read, written
  }

  void output(const Poller& poll) {
    std::fill_n(w_.columns, g_.head_dim_v * kRows, 0.0F);
    for_each_part(g_, span_, [&](const PanelPart& at) {
      poll();
      load_values(ops_, params_, at.keys, batch_, kv_head_of(g_, head_), w_.keys, tally_);
      const float* p = only_part(at, p_ + matrices_.place(at.keys), w_.tile);
      add_weighted_keys(ops_, at.keys.keys, span_.rows, g_.head_dim_v, w_.keys, p, w_.columns);
      tally_.flops += 2 * pairs_of(at) * g_.head_dim_v;
      tally_.bytes += pairs_of(at) * static_cast<std::int64_t>(sizeof(float));
    });
    to_rows(ops_, span_.rows, g_.head_dim_v, w_.columns, w_.rows);
    finish(RowBlock(g_, span_));
  }

 private:
  std::int64_t matrix_bytes() const {
    return span_.rows * matrices_.keys() * static_cast<std::int64_t>(sizeof(float));
  }

  /// w_.rows, which is O of these keys, merged with the state and written; max_ becomes lse.
  void finish(const RowBlock& block) {
    const HeadOutput state{params_.state, batch_, head_, g_.head_dim_v};
    const HeadOutput lse{params_.lse, batch_, head_, 1};
    for (std::int64_t i = 0; i < block.rows; ++i) {
      float* row = w_.rows + i * pitch(g_.head_dim_v);
      max_[i] = sum_[i] == 0.0F ? kNothing : max_[i] + std::log(sum_[i]);
      if (params_.resume) {
        const std::int64_t token = block.tokens[static_cast<std::size_t>(i)];
        merge_row(row, max_[i], f32_row(state, token), *f32_row(lse, token), g_.head_dim_v);
      }
      sum_[i] = max_[i] == kNothing ? 0.0F : 1.0F;
    }
    if (params_.resume) {
      tally_.bytes += block.rows * (g_.head_dim_v + 1) * static_cast<std::int64_t>(sizeof(float));
    }
    const HeadOutput out{params_.finish ? params_.out : params_.state, batch_, head_,
                         g_.head_dim_v};
    store_result(ops_, out, lse, block, w_.rows, max_, sum_, tally_);  // log(1) adds nothing
  }

  const ForwardParams& params_;
  const AttendGeometry& g_;
  const TileOps& ops_;
  const ScoreMatrices& matrices_;
  std::int64_t index_, batch_, head_;
  RowSpan span_;
  float *s_, *p_, *max_, *sum_;
  const ForwardBuffers& w_;
  Tally& tally_;
};

}  // namespace

std::int64_t naive_forward_bytes(const AttendGeometry& geometry) {
  Scratch scratch;
  const ForwardBuffers count(geometry, scratch);
  return scratch.bytes();
}

void naive_forward(const ForwardParams& params, const LaunchContext& context) {
  const AttendGeometry& g = params.geometry;
  row_spans(g);  // for its checks
  const TileOps ops = tile_ops();
  const Workspace workspace(context, ScoreMatrices::floats(g), naive_forward_bytes(g));
  const ScoreMatrices matrices(g, workspace.shared());
  const auto sweep = [&](auto&& body) {
    run_units(context, g.batch * g.heads * matrices.panels(),
              [&](int thread, std::int64_t unit, Tally& tally, const Poller& poll) {
                Scratch scratch = workspace.share(thread);
                const ForwardBuffers buffers(g, scratch);
                ForwardPanel panel(params, ops, matrices, unit, buffers, tally);
                body(panel, poll);
              });
  };
  sweep([](ForwardPanel& panel, const Poller& poll) { panel.scores(poll); });
  sweep([](ForwardPanel& panel, const Poller&) { panel.softmax(); });
  sweep([](ForwardPanel& panel, const Poller& poll) { panel.output(poll); });
}

}  // namespace annulus::attn::cpu
