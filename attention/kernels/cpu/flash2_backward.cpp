// FlashAttention-2 backward (Dao 2023, algorithm 2) on a CPU: key blocks stream past blocks of
// query rows. For each pair P is recomputed from lse, dS = P * (dP - delta), then dV += P^T dO, dK
// += dS^T Q, dQ += dS K. A thread holds several row blocks with their dQ; dK and dV of a key block
// gather in the workspace over them and are added to the output once. Units that share keys add in
// a fixed order (turns.h): same bits for any thread count. Q is scaled when it is loaded, so that
// dK needs no factor; dQ gets it at the end. Workspace per thread: K, V, P, dS, dK, dV blocks; Q,
// Q^T, dO, dO^T, dQ^T of each slot.
#include "attention/kernels/cpu/flash2.h"

#include "attention/kernels/cpu/products.h"
#include "attention/kernels/cpu/rows.h"
#include "attention/kernels/cpu/scratch.h"
#include "attention/kernels/cpu/turns.h"
#include "attention/kernels/cpu/units.h"

namespace annulus::attn::cpu {

namespace {

constexpr std::int64_t kMaxSlots = 8;

/// Row blocks that a thread holds: with the key blocks they fill an L2 of 2 MiB by half.
std::int64_t max_slots(const AttendGeometry& g) {
  constexpr std::int64_t kBytes = 768 << 10;
  const std::int64_t slot = kRows * (3 * g.head_dim + 2 * g.head_dim_v) * 4;
  return std::clamp<std::int64_t>(kBytes / slot, 1, kMaxSlots);
}

/// Slots of a unit: fewer where a lane is short, so that several threads share it. It may not
/// depend on their number, for the sums of dK and dV do on it.
std::int64_t slots_for(const AttendGeometry& g, std::span<const RowSpan> spans) {
  const std::int64_t all = static_cast<std::int64_t>(spans.size()) * std::min(g.group, g.heads);
  return std::clamp<std::int64_t>(all / 8, 1, max_slots(g));
}

struct BackwardSlot {
  float *q_rows, *q, *dout_rows, *dout, *dq, *lse, *delta;
};

struct BackwardBuffers {
  BackwardBuffers(const AttendGeometry& g, Scratch& scratch)
      : k(scratch.floats(kKeys * pitch(g.head_dim))),
        v(scratch.floats(kKeys * pitch(g.head_dim_v))),
        dk(scratch.floats(kKeys * pitch(g.head_dim))),
        dv(scratch.floats(kKeys * pitch(g.head_dim_v))),
        p(scratch.floats(kKeys * kRows)),
        ds(scratch.floats(kKeys * kRows)) {
    for (std::int64_t i = 0; i < max_slots(g); ++i) {
      slots[i] = {scratch.floats(kRows * pitch(g.head_dim)),
                  scratch.floats(kRows * g.head_dim),
                  scratch.floats(kRows * pitch(g.head_dim_v)),
                  scratch.floats(kRows * g.head_dim_v),
                  scratch.floats(kRows * g.head_dim),
                  scratch.floats(kRows),
                  scratch.floats(kRows)};
    }
  }

  float *k, *v, *dk, *dv, *p, *ds;
  BackwardSlot slots[kMaxSlots];
};

/// One unit, on one thread.
class BackwardUnit {
 public:
  BackwardUnit(const BackwardParams& params, const TileOps& ops, const Unit& unit,
               const BackwardBuffers& buffers, Tally& tally)
      : params_(params),
        g_(params.geometry),
        ops_(ops),
        unit_(unit),
        w_(buffers),
        tally_(tally),
        dk_{params.dk, unit.batch, unit.kv_head, g_.head_dim},
        dv_{params.dv, unit.batch, unit.kv_head, g_.head_dim_v} {}

  /// Calls poll() before each pair of blocks and while it waits for its turn.
  void run(KeyTurns& turns, const Poller& poll) {
    std::vector<KeyCursor> cursors;
    if (unit_.heads > 0) cursors = cursors_of(unit_.spans);
    if (unit_.step == 0 && params_.dkv_assign) {
      clear_keys(g_, dk_, tally_);
      clear_keys(g_, dv_, tally_);
    }
    turns.publish(unit_, cursors);
    each_slot([&](const RowBlock& block, std::int64_t head, const BackwardSlot& slot) {
      begin(block, head, slot);
    });
    std::int64_t open = 0;
    for (KeySpan keys; next_keys(cursors, keys);) {
      meet(keys, cursors, poll);
      if (!turns.wait(unit_, keys, open, poll)) return;
      add_keys(ops_, dk_, token_of(g_, keys), keys.keys, w_.dk, tally_);
      add_keys(ops_, dv_, token_of(g_, keys), keys.keys, w_.dv, tally_);
      turns.publish(unit_, cursors);
    }
    each_slot([&](const RowBlock& block, std::int64_t head, const BackwardSlot& slot) {
      const HeadOutput dq{params_.dq, unit_.batch, head, g_.head_dim};
      store_gradient(ops_, dq, block, slot.dq, static_cast<float>(g_.softmax_scale),
                     params_.dq_assign, slot.q_rows, tally_);
    });
  }

 private:
  template <typename Fn>
  void each_slot(Fn&& fn) {
    const BackwardSlot* slot = w_.slots;
    for (const RowSpan& span : unit_.spans) {
      const RowBlock block(g_, span);
      for (std::int64_t head = 0; head < unit_.heads; ++head) fn(block, unit_.head + head, *slot++);
    }
  }

  void begin(const RowBlock& block, std::int64_t head, const BackwardSlot& slot) {
    load_rows(ops_, {params_.q, unit_.batch, head, g_.head_dim}, block,
              static_cast<float>(g_.softmax_scale), slot.q_rows, tally_);
    to_columns(ops_, block.rows, g_.head_dim, slot.q_rows, slot.q);
    load_rows(ops_, {params_.dout, unit_.batch, head, g_.head_dim_v}, block, 1.0F, slot.dout_rows,
              tally_);
    to_columns(ops_, block.rows, g_.head_dim_v, slot.dout_rows, slot.dout);
    std::fill_n(slot.dq, kRows * g_.head_dim, 0.0F);
    load_statistics({params_.lse, unit_.batch, head, 1}, {params_.delta, unit_.batch, head, 1},
                    block, slot.lse, slot.delta, tally_);
  }

  /// All slots that meet `keys`; dk and dv of the block are their sums.
  void meet(const KeySpan& keys, std::span<KeyCursor> cursors, const Poller& poll) {
    load_keys(ops_, params_, keys, unit_.batch, unit_.kv_head, w_.k, tally_);
    load_values(ops_, params_, keys, unit_.batch, unit_.kv_head, w_.v, tally_);
    bool add = false;
    for (std::size_t block = 0; block < cursors.size(); ++block) {
      KeyCursor& cursor = cursors[block];
      if (cursor.done() || cursor.keys() != keys) continue;
      const RowSpan& span = unit_.spans[block];
      const KeyBlock part = key_block(g_, span.row, span.rows, cursor.tile(), keys);
      for (std::int64_t head = 0; head < unit_.heads; ++head) {
        poll();
        const BackwardSlot& slot = w_.slots[static_cast<std::int64_t>(block) * unit_.heads + head];
        recompute(part, slot);
        differentiate(part, slot, add);
        add = true;
      }
      cursor.advance();
    }
  }

  /// P and dS of the block, [key][row].
  void recompute(const KeyBlock& part, const BackwardSlot& slot) {
    multiply_keys(ops_, part.keys, part.rows, g_.head_dim, w_.k, slot.q, w_.p);
    multiply_keys(ops_, part.keys, part.rows, g_.head_dim_v, w_.v, slot.dout, w_.ds);
    ops_.gradient({.rule = rule_of(g_, part),
                   .keys = part.keys,
                   .rows = padded(part.rows),
                   .p = w_.p,
                   .ds = w_.ds,
                   .lse = slot.lse,
                   .delta = slot.delta});
  }

  void differentiate(const KeyBlock& part, const BackwardSlot& slot, bool add) {
    add_weighted_keys(ops_, part.keys, part.rows, g_.head_dim, w_.k, w_.ds, slot.dq);
    weigh_rows(ops_, part.keys, part.rows, g_.head_dim_v, w_.p, slot.dout_rows, w_.dv, add);
    weigh_rows(ops_, part.keys, part.rows, g_.head_dim, w_.ds, slot.q_rows, w_.dk, add);
    tally_.flops += 2 * part.rows * part.keys * (3 * g_.head_dim + 2 * g_.head_dim_v);
  }

  const BackwardParams& params_;
  const AttendGeometry& g_;
  const TileOps& ops_;
  const Unit& unit_;
  const BackwardBuffers& w_;
  Tally& tally_;
  HeadOutput dk_, dv_;
};

}  // namespace

std::int64_t flash2_backward_bytes(const AttendGeometry& geometry) {
  Scratch scratch;
  const BackwardBuffers count(geometry, scratch);
  return scratch.bytes();
}

void flash2_backward(const BackwardParams& params, const LaunchContext& context) {
  const AttendGeometry& g = params.geometry;
  const std::vector<RowSpan> spans = row_spans(g);
  const TileOps ops = tile_ops();
  const Workspace workspace(context, 0, flash2_backward_bytes(g));
  const Units units(g, spans, slots_for(g, spans));
  KeyTurns turns(g, units);
  run_units(context, units.count(),
            [&](int thread, std::int64_t index, Tally& tally, const Poller& poll) {
              Scratch scratch = workspace.share(thread);
              const BackwardBuffers buffers(g, scratch);
              const Unit unit = units.at(index);
              try {
                BackwardUnit(params, ops, unit, buffers, tally).run(turns, poll);
              } catch (...) {  // others may wait for this unit's turn to pass
                turns.give_up();
                throw;
              }
            });
}

}  // namespace annulus::attn::cpu
