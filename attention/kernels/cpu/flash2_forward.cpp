// FlashAttention-2 forward (Dao 2023) on a CPU: blocks of query rows stay, key blocks stream past
// them, O is rescaled by the running maximum and divided by the sum once, at the end.
// A thread holds several row blocks, of all query heads of a group, so that a key block is widened
// and brought to L1 once for them. For each: S^T = K Q^T, online softmax down the columns,
// O^T += V^T P^T; all three tiles lie with rows innermost (tile_ops.h).
// Workspace per thread: K, V and S^T blocks; Q^T and O^T of each slot.
// Limits: head dims up to 512; tiles that begin at different rows share none.
#include "attention/kernels/cpu/flash2.h"

#include "attention/kernels/cpu/products.h"
#include "attention/kernels/cpu/rows.h"
#include "attention/kernels/cpu/scratch.h"
#include "attention/kernels/cpu/units.h"

namespace annulus::attn::cpu {

namespace {

/// Row blocks that a thread holds: half of an L2 of 2 MiB at most; with eight, bringing the keys
/// costs less than 2 % of the products.
std::int64_t max_slots(const AttendGeometry& g) {
  constexpr std::int64_t kBytes = 1 << 20;
  const std::int64_t slot = kRows * (g.head_dim + g.head_dim_v) * 4;
  return std::clamp<std::int64_t>(kBytes / slot, 1, 8);
}

struct ForwardSlot {
  float *q, *o, *max, *sum;
};

struct ForwardBuffers {
  ForwardBuffers(const AttendGeometry& g, Scratch& scratch)
      : rows(scratch.floats(kRows * pitch(std::max(g.head_dim, g.head_dim_v)))),
        k(scratch.floats(kKeys * pitch(g.head_dim))),
        v(scratch.floats(kKeys * pitch(g.head_dim_v))),
        p(scratch.floats(kKeys * kRows)) {
    for (std::int64_t i = 0; i < max_slots(g); ++i) {
      slots[i] = {scratch.floats(g.head_dim * kRows), scratch.floats(g.head_dim_v * kRows),
                  scratch.floats(kRows), scratch.floats(kRows)};
    }
  }

  float *rows, *k, *v, *p;
  ForwardSlot slots[8];
};

/// One unit, on one thread.
class ForwardUnit {
 public:
  ForwardUnit(const ForwardParams& params, const TileOps& ops, const Unit& unit,
              const ForwardBuffers& buffers, Tally& tally)
      : params_(params), g_(params.geometry), ops_(ops), unit_(unit), w_(buffers), tally_(tally) {}

  /// Calls poll() before each tile product.
  void run(const Poller& poll) {
    each_slot([&](const RowBlock& block, std::int64_t head, const ForwardSlot& slot) {
      begin(block, head, slot);
    });
    std::vector<KeyCursor> cursors = cursors_of(unit_.spans);
    for (KeySpan keys; next_keys(cursors, keys);) {
      load_keys(ops_, params_, keys, unit_.batch, unit_.kv_head, w_.k, tally_);
      load_values(ops_, params_, keys, unit_.batch, unit_.kv_head, w_.v, tally_);
      for (std::size_t block = 0; block < cursors.size(); ++block) {
        KeyCursor& cursor = cursors[block];
        if (cursor.done() || cursor.keys() != keys) continue;
        const RowSpan& span = unit_.spans[block];
        const KeyBlock part = key_block(g_, span.row, span.rows, cursor.tile(), keys);
        for (std::int64_t head = 0; head < unit_.heads; ++head) {
          poll();
          attend(part, w_.slots[static_cast<std::int64_t>(block) * unit_.heads + head]);
        }
        cursor.advance();
      }
    }
    each_slot([&](const RowBlock& block, std::int64_t head, const ForwardSlot& slot) {
      end(block, head, slot);
    });
  }

 private:
  template <typename Fn>
  void each_slot(Fn&& fn) {
    const ForwardSlot* slot = w_.slots;
    for (const RowSpan& span : unit_.spans) {
      const RowBlock block(g_, span);
      for (std::int64_t head = 0; head < unit_.heads; ++head) fn(block, unit_.head + head, *slot++);
    }
  }

  HeadOutput state(std::int64_t head) const {
    return {params_.state, unit_.batch, head, g_.head_dim_v};
  }
  HeadOutput lse(std::int64_t head) const { return {params_.lse, unit_.batch, head, 1}; }

  void begin(const RowBlock& block, std::int64_t head, const ForwardSlot& slot) {
    load_rows(ops_, {params_.q, unit_.batch, head, g_.head_dim}, block,
              static_cast<float>(g_.softmax_scale), w_.rows, tally_);
    to_columns(ops_, block.rows, g_.head_dim, w_.rows, slot.q);
    std::fill_n(slot.max, kRows, kNothing);
    std::fill_n(slot.sum, kRows, 0.0F);
    std::fill_n(slot.o, g_.head_dim_v * kRows, 0.0F);
    if (!params_.resume) return;
    std::fill_n(w_.rows, kRows * pitch(g_.head_dim_v), 0.0F);
    load_state(as_input(state(head)), as_input(lse(head)), block, w_.rows, slot.max, slot.sum,
               tally_);
    to_columns(ops_, block.rows, g_.head_dim_v, w_.rows, slot.o);
  }

  void attend(const KeyBlock& part, const ForwardSlot& slot) {
    multiply_keys(ops_, part.keys, part.rows, g_.head_dim, w_.k, slot.q, w_.p);
    ops_.softmax({.rule = rule_of(g_, part),
                  .keys = part.keys,
                  .rows = padded(part.rows),
                  .dim = g_.head_dim_v,
                  .tile = w_.p,
                  .row_max = slot.max,
                  .row_sum = slot.sum,
                  .accumulator = slot.o});
    add_weighted_keys(ops_, part.keys, part.rows, g_.head_dim_v, w_.v, w_.p, slot.o);
    tally_.flops += 2 * part.rows * part.keys * (g_.head_dim + g_.head_dim_v);
  }

  void end(const RowBlock& block, std::int64_t head, const ForwardSlot& slot) {
    to_rows(ops_, block.rows, g_.head_dim_v, slot.o, w_.rows);
    const HeadOutput out{params_.finish ? params_.out : params_.state, unit_.batch, head,
                         g_.head_dim_v};
    store_result(ops_, out, lse(head), block, w_.rows, slot.max, slot.sum, tally_);
  }

  const ForwardParams& params_;
  const AttendGeometry& g_;
  const TileOps& ops_;
  const Unit& unit_;
  const ForwardBuffers& w_;
  Tally& tally_;
};

/// Few rows are shared out among the threads: rows are independent, so that no bit depends on it.
std::int64_t slots_for(const AttendGeometry& g, std::span<const RowSpan> spans, int threads) {
  std::int64_t slots = max_slots(g);
  while (slots > 1 && Units(g, spans, slots).count() < 4 * threads) slots /= 2;
  return slots;
}

}  // namespace

std::int64_t flash2_forward_bytes(const AttendGeometry& geometry) {
  Scratch scratch;
  const ForwardBuffers count(geometry, scratch);
  return scratch.bytes();
}

void flash2_forward(const ForwardParams& params, const LaunchContext& context) {
  const AttendGeometry& g = params.geometry;
  const std::vector<RowSpan> spans = row_spans(g);
  const TileOps ops = tile_ops();
  const Workspace workspace(context, 0, flash2_forward_bytes(g));
  const Units units(g, spans, slots_for(g, spans, context.threads));
  run_units(context, units.count(),
            [&](int thread, std::int64_t index, Tally& tally, const Poller& poll) {
              Scratch scratch = workspace.share(thread);
              const ForwardBuffers buffers(g, scratch);
              const Unit unit = units.at(index);
              if (unit.heads == 0) return;
              ForwardUnit(params, ops, unit, buffers, tally).run(poll);
            });
}

}  // namespace annulus::attn::cpu
