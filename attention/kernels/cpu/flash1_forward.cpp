// FlashAttention forward (Dao et al. 2022, algorithm 1) on a CPU: key blocks outside, query blocks
// inside. O, l and m of all rows of a head lie in memory; each visit of a row block reads them,
// takes in one key block, normalises O again and writes them back.
// A unit of work is a head, as in the paper: fewer heads than threads leave threads idle.
// Workspace: O, l and m of every head; per thread Q, Q^T, O^T, K, V and S^T blocks.
#include "attention/kernels/cpu/flash1.h"

#include "attention/kernels/cpu/products.h"
#include "attention/kernels/cpu/rows.h"
#include "attention/kernels/cpu/scratch.h"
#include "attention/kernels/cpu/units.h"

namespace annulus::attn::cpu {

namespace {

struct ForwardBuffers {
  ForwardBuffers(const AttendGeometry& g, Scratch& scratch)
      : rows(scratch.floats(kRows * pitch(std::max(g.head_dim, g.head_dim_v)))),
        q(scratch.floats(g.head_dim * kRows)),
        o(scratch.floats(g.head_dim_v * kRows)),
        k(scratch.floats(kKeys * pitch(g.head_dim))),
        v(scratch.floats(kKeys * pitch(g.head_dim_v))),
        p(scratch.floats(kKeys * kRows)),
        max(scratch.floats(kRows)),
        sum(scratch.floats(kRows)) {}

  float *rows, *q, *o, *k, *v, *p, *max, *sum;
};

/// What lies in memory of one head: o [rows][head_dim_v], normalised; l and m [rows].
struct HeadState {
  HeadState(const AttendGeometry& g, float* memory)
      : o(memory), l(o + g.rows * g.head_dim_v), m(l + g.rows) {}

  float *o, *l, *m;
};

/// One (batch, query head), on one thread.
class ForwardHead {
 public:
  ForwardHead(const ForwardParams& params, const TileOps& ops, std::int64_t batch,
              std::int64_t head, const HeadState& memory, const ForwardBuffers& buffers,
              Tally& tally)
      : params_(params),
        g_(params.geometry),
        ops_(ops),
        memory_(memory),
        w_(buffers),
        tally_(tally),
        batch_(batch),
        kv_head_(kv_head_of(g_, head)),
        q_{params.q, batch, head, g_.head_dim},
        out_{params.finish ? params.out : params.state, batch, head, g_.head_dim_v},
        state_{params.state, batch, head, g_.head_dim_v},
        lse_{params.lse, batch, head, 1} {}

  /// Calls poll() before each tile product.
  void run(std::span<const RowSpan> spans, const Poller& poll) {
    for (const RowSpan& span : spans) begin(RowBlock(g_, span));
    std::vector<KeyCursor> cursors = cursors_of(spans);
    for (KeySpan keys; next_keys(cursors, keys);) {
      load_keys(ops_, params_, keys, batch_, kv_head_, w_.k, tally_);
      load_values(ops_, params_, keys, batch_, kv_head_, w_.v, tally_);
      for (std::size_t i = 0; i < spans.size(); ++i) {
        KeyCursor& cursor = cursors[i];
        if (cursor.done() || cursor.keys() != keys) continue;
        poll();
        const KeyBlock part = key_block(g_, spans[i].row, spans[i].rows, cursor.tile(), keys);
        attend(RowBlock(g_, spans[i]), part);
        cursor.advance();
      }
    }
    for (const RowSpan& span : spans) end(RowBlock(g_, span));
  }

 private:
  void begin(const RowBlock& block) {
    std::fill_n(w_.max, kRows, kNothing);
    std::fill_n(w_.sum, kRows, 0.0F);
    std::fill_n(w_.rows, kRows * pitch(g_.head_dim_v), 0.0F);
    if (params_.resume) {
      load_state(as_input(state_), as_input(lse_), block, w_.rows, w_.max, w_.sum, tally_);
    }
    write_back(block, false);
  }

  /// w_.rows, max and sum to memory; O divided by the sum or as it is.
  void write_back(const RowBlock& block, bool divide) {
    for (std::int64_t i = 0; i < block.rows; ++i) {
      const float factor = divide && w_.sum[i] > 0.0F ? 1.0F / w_.sum[i] : 1.0F;
      ops_.narrow(w_.rows + i * pitch(g_.head_dim_v), g_.head_dim_v, factor, DType::f32,
                  memory_.o + (block.row + i) * g_.head_dim_v);
    }
    std::copy_n(w_.max, block.rows, memory_.m + block.row);
    std::copy_n(w_.sum, block.rows, memory_.l + block.row);
    count_state(block);
  }

  /// From memory to w_.rows, max and sum; O times the sum or as it is.
  void read(const RowBlock& block, bool multiply) {
    std::fill_n(w_.max, kRows, kNothing);
    std::fill_n(w_.sum, kRows, 0.0F);
    std::copy_n(memory_.m + block.row, block.rows, w_.max);
    std::copy_n(memory_.l + block.row, block.rows, w_.sum);
    for (std::int64_t i = 0; i < block.rows; ++i) {
      ops_.narrow(memory_.o + (block.row + i) * g_.head_dim_v, g_.head_dim_v,
                  multiply ? w_.sum[i] : 1.0F, DType::f32, w_.rows + i * pitch(g_.head_dim_v));
    }
    count_state(block);
  }

  void count_state(const RowBlock& block) {
    tally_.bytes += block.rows * (g_.head_dim_v + 2) * static_cast<std::int64_t>(sizeof(float));
  }

  void attend(const RowBlock& block, const KeyBlock& part) {
    load_rows(ops_, q_, block, static_cast<float>(g_.softmax_scale), w_.rows, tally_);
    to_columns(ops_, block.rows, g_.head_dim, w_.rows, w_.q);
    read(block, true);
    to_columns(ops_, block.rows, g_.head_dim_v, w_.rows, w_.o);
    multiply_keys(ops_, part.keys, part.rows, g_.head_dim, w_.k, w_.q, w_.p);
    ops_.softmax({.rule = rule_of(g_, part),
                  .keys = part.keys,
                  .rows = padded(part.rows),
                  .dim = g_.head_dim_v,
                  .tile = w_.p,
                  .row_max = w_.max,
                  .row_sum = w_.sum,
                  .accumulator = w_.o});
    add_weighted_keys(ops_, part.keys, part.rows, g_.head_dim_v, w_.v, w_.p, w_.o);
    tally_.flops += 2 * part.rows * part.keys * (g_.head_dim + g_.head_dim_v);
    to_rows(ops_, block.rows, g_.head_dim_v, w_.o, w_.rows);
    write_back(block, true);
  }

  void end(const RowBlock& block) {
    read(block, true);  // store_result divides
    store_result(ops_, out_, lse_, block, w_.rows, w_.max, w_.sum, tally_);
  }

  const ForwardParams& params_;
  const AttendGeometry& g_;
  const TileOps& ops_;
  HeadState memory_;
  const ForwardBuffers& w_;
  Tally& tally_;
  std::int64_t batch_, kv_head_;
  HeadInput q_;
  HeadOutput out_, state_, lse_;
};

}  // namespace

std::int64_t flash1_state_floats(const AttendGeometry& geometry) {
  return geometry.rows * (geometry.head_dim_v + 2);
}

std::int64_t flash1_forward_bytes(const AttendGeometry& geometry) {
  Scratch scratch;
  const ForwardBuffers count(geometry, scratch);
  return scratch.bytes();
}

void flash1_forward(const ForwardParams& params, const LaunchContext& context) {
  const AttendGeometry& g = params.geometry;
  const std::vector<RowSpan> spans = row_spans(g);
  const TileOps ops = tile_ops();
  const std::int64_t heads = g.batch * g.heads;
  const Workspace workspace(context, heads * flash1_state_floats(g), flash1_forward_bytes(g));
  run_units(context, heads, [&](int thread, std::int64_t unit, Tally& tally, const Poller& poll) {
    Scratch scratch = workspace.share(thread);
    const ForwardBuffers buffers(g, scratch);
    const HeadState memory(g, workspace.shared() + unit * flash1_state_floats(g));
    ForwardHead(params, ops, unit / g.heads, unit % g.heads, memory, buffers, tally)
        .run(spans, poll);
  });
}

}  // namespace annulus::attn::cpu
