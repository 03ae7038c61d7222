// FlashAttention backward (Dao et al. 2022, algorithm 4) on a CPU: key blocks outside, query blocks
// inside. dK and dV of a key block stay in the workspace; each visit of a row block reads Q, dO,
// lse and delta again and adds to dQ in memory. A unit of work is a key/value head with the query
// heads that read it, in order. Workspace per thread: Q, Q^T, dO, dO^T, dQ^T, K, V, P, dS, dK, dV
// blocks.
#include "attention/kernels/cpu/flash1.h"

#include "attention/kernels/cpu/products.h"
#include "attention/kernels/cpu/rows.h"
#include "attention/kernels/cpu/scratch.h"
#include "attention/kernels/cpu/units.h"

namespace annulus::attn::cpu {

namespace {

struct BackwardBuffers {
  BackwardBuffers(const AttendGeometry& g, Scratch& scratch)
      : q_rows(scratch.floats(kRows * pitch(g.head_dim))),
        q(scratch.floats(kRows * g.head_dim)),
        dout_rows(scratch.floats(kRows * pitch(g.head_dim_v))),
        dout(scratch.floats(kRows * g.head_dim_v)),
        dq(scratch.floats(kRows * g.head_dim)),
        k(scratch.floats(kKeys * pitch(g.head_dim))),
        v(scratch.floats(kKeys * pitch(g.head_dim_v))),
        dk(scratch.floats(kKeys * pitch(g.head_dim))),
        dv(scratch.floats(kKeys * pitch(g.head_dim_v))),
        p(scratch.floats(kKeys * kRows)),
        ds(scratch.floats(kKeys * kRows)),
        lse(scratch.floats(kRows)),
        delta(scratch.floats(kRows)) {}

  float *q_rows, *q, *dout_rows, *dout, *dq, *k, *v, *dk, *dv, *p, *ds, *lse, *delta;
};

/// One (batch, key/value head), on one thread.
class BackwardHead {
 public:
  BackwardHead(const BackwardParams& params, const TileOps& ops, const Unit& unit,
               const BackwardBuffers& buffers, Tally& tally)
      : params_(params), g_(params.geometry), ops_(ops), unit_(unit), w_(buffers), tally_(tally) {}

  /// Calls poll() before each pair of blocks.
  void run(const Poller& poll) {
    const HeadOutput dk{params_.dk, unit_.batch, unit_.kv_head, g_.head_dim};
    const HeadOutput dv{params_.dv, unit_.batch, unit_.kv_head, g_.head_dim_v};
    begin(dk, dv);
    std::vector<KeyCursor> cursors = cursors_of(unit_.spans);
    for (KeySpan keys; next_keys(cursors, keys);) {
      load_keys(ops_, params_, keys, unit_.batch, unit_.kv_head, w_.k, tally_);
      load_values(ops_, params_, keys, unit_.batch, unit_.kv_head, w_.v, tally_);
      bool add = false;
      for (std::size_t i = 0; i < cursors.size(); ++i) {
        KeyCursor& cursor = cursors[i];
        if (cursor.done() || cursor.keys() != keys) continue;
        const RowSpan& span = unit_.spans[i];
        const KeyBlock part = key_block(g_, span.row, span.rows, cursor.tile(), keys);
        for (std::int64_t h = unit_.head; h < unit_.head + unit_.heads; ++h, add = true) {
          poll();
          differentiate(RowBlock(g_, span), part, h, add);
        }
        cursor.advance();
      }
      add_keys(ops_, dk, token_of(g_, keys), keys.keys, w_.dk, tally_);
      add_keys(ops_, dv, token_of(g_, keys), keys.keys, w_.dv, tally_);
    }
  }

 private:
  HeadOutput dq(std::int64_t head) const { return {params_.dq, unit_.batch, head, g_.head_dim}; }

  /// Assigned gradients start as zero.
  void begin(const HeadOutput& dk, const HeadOutput& dv) {
    if (params_.dkv_assign) {
      clear_keys(g_, dk, tally_);
      clear_keys(g_, dv, tally_);
    }
    if (!params_.dq_assign) return;
    std::fill_n(w_.dq, kRows * g_.head_dim, 0.0F);
    for (const RowSpan& span : unit_.spans) {
      const RowBlock block(g_, span);
      for (std::int64_t h = unit_.head; h < unit_.head + unit_.heads; ++h) {
        store_gradient(ops_, dq(h), block, w_.dq, 1.0F, true, w_.q_rows, tally_);
      }
    }
  }

  void differentiate(const RowBlock& block, const KeyBlock& part, std::int64_t head, bool add) {
    const auto scale = static_cast<float>(g_.softmax_scale);
    load_rows(ops_, {params_.q, unit_.batch, head, g_.head_dim}, block, scale, w_.q_rows, tally_);
    to_columns(ops_, block.rows, g_.head_dim, w_.q_rows, w_.q);
    load_rows(ops_, {params_.dout, unit_.batch, head, g_.head_dim_v}, block, 1.0F, w_.dout_rows,
              tally_);
    to_columns(ops_, block.rows, g_.head_dim_v, w_.dout_rows, w_.dout);
    load_statistics({params_.lse, unit_.batch, head, 1}, {params_.delta, unit_.batch, head, 1},
                    block, w_.lse, w_.delta, tally_);
    multiply_keys(ops_, part.keys, part.rows, g_.head_dim, w_.k, w_.q, w_.p);
    multiply_keys(ops_, part.keys, part.rows, g_.head_dim_v, w_.v, w_.dout, w_.ds);
    ops_.gradient({.rule = rule_of(g_, part),
                   .keys = part.keys,
                   .rows = padded(part.rows),
                   .p = w_.p,
                   .ds = w_.ds,
                   .lse = w_.lse,
                   .delta = w_.delta});
    weigh_rows(ops_, part.keys, part.rows, g_.head_dim_v, w_.p, w_.dout_rows, w_.dv, add);
    weigh_rows(ops_, part.keys, part.rows, g_.head_dim, w_.ds, w_.q_rows, w_.dk, add);
    std::fill_n(w_.dq, kRows * g_.head_dim, 0.0F);
    add_weighted_keys(ops_, part.keys, part.rows, g_.head_dim, w_.k, w_.ds, w_.dq);
    store_gradient(ops_, dq(head), block, w_.dq, scale, false, w_.q_rows, tally_);
    tally_.flops += 2 * part.rows * part.keys * (3 * g_.head_dim + 2 * g_.head_dim_v);
  }

  const BackwardParams& params_;
  const AttendGeometry& g_;
  const TileOps& ops_;
  const Unit& unit_;
  const BackwardBuffers& w_;
  Tally& tally_;
};

}  // namespace

std::int64_t flash1_backward_bytes(const AttendGeometry& geometry) {
  Scratch scratch;
  const BackwardBuffers count(geometry, scratch);
  return scratch.bytes();
}

void flash1_backward(const BackwardParams& params, const LaunchContext& context) {
  const AttendGeometry& g = params.geometry;
  const std::vector<RowSpan> spans = row_spans(g);
  const TileOps ops = tile_ops();
  const Workspace workspace(context, 0, flash1_backward_bytes(g));
  // All rows and heads of a lane in one unit.
  const std::int64_t slots = std::max<std::int64_t>(1, static_cast<std::int64_t>(spans.size()));
  const Units units(g, spans, slots * g.group);
  run_units(context, units.count(),
            [&](int thread, std::int64_t index, Tally& tally, const Poller& poll) {
              Scratch scratch = workspace.share(thread);
              const BackwardBuffers buffers(g, scratch);
              const Unit unit = units.at(index);
              BackwardHead(params, ops, unit, buffers, tally).run(poll);
            });
}

}  // namespace annulus::attn::cpu
