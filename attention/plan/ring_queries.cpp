// Backward of a ring in which queries travel: in step s, group g attends the rows of group g - s to
// its own keys while these rows move on to group g + 1. Q|dO and LSE|row sums are held twice. dK
// and dV of own keys are complete here after the last step. The fp32 sum of dQ travels one step
// behind its rows and is home after R steps; each step's part is computed into a buffer of its own,
// so that the sum may arrive as late as the part is done. Roles are those of ring.cpp, exchanged.

#include "attention/plan/ring_steps.h"
#include "attention/plan/stages.h"

#include <utility>
#include <vector>

namespace annulus::attn {
namespace {

/// What travels with the rows.
struct Travellers {
  Pair wide;          ///< Q|dO
  Pair narrow;        ///< LSE|row sums
  Pair sum;           ///< dQ
  std::int32_t part;  ///< of dQ, of the present step
};

Travellers traveller_slots(RankBuilder& b) {
  const auto make = [&](std::string_view name, DType dtype, std::int32_t dim) {
    return b.slot(name, dtype, b.plan().max_group_seq, b.heads().count, dim);
  };
  const auto twice = [&](std::string_view name, DType dtype, std::int32_t dim) {
    const std::int32_t first = make(name, dtype, dim);
    return Pair{{first, make(name, dtype, dim)}};
  };
  return {twice("q and dout", b.problem().dtype, b.dim() + b.dim_v()),
          twice("lse and delta", DType::f32, 2), twice("dq sum", DType::f32, b.dim()),
          make("dq part", DType::f32, b.dim())};
}

Block rows_in(const RankBuilder& b, std::int32_t slot, const Group& group) {
  return with_tokens(b.whole(slot), 0, group.seq);
}

/// Own rows into the slots that travel.
void pack(RankBuilder& b, const GroupTensors& t, const Travellers& rows) {
  const auto add = [&](const SlotView& from, std::int32_t slot, std::int32_t dim,
                       std::int32_t dims) {
    b.copy({from.slot, 0, b.group().seq, 1, b.heads().first - from.head_origin, b.heads().count,
            from.dim, dims},
           with_dims(rows_in(b, slot, b.group()), dim, dims), 0);
  };
  add(t.q, rows.wide[0], 0, b.dim());
  add(t.dout, rows.wide[0], b.dim(), b.dim_v());
  add(t.lse, rows.narrow[0], 0, 1);
  add(t.delta, rows.narrow[0], 1, 1);
}

void pass_on(RankBuilder& b, const Ring& ring, const Pair& slots, int s) {
  b.transfer(true, ring.next(), rows_in(b, slots[s], ring.group(s)), s);
  b.transfer(false, ring.previous(), rows_in(b, slots[s + 1], ring.group(s + 1)), s);
}

/// Of own keys with the rows of each step.
Steps steps_of(const RankBuilder& b, const Ring& ring) {
  std::vector<std::int64_t> pairs;
  for (int s = 0; s < ring.size; ++s) {
    const auto group = static_cast<std::size_t>(ring.chunk(s));
    pairs.push_back(RankBuilder::pairs(b.plan().row_tables[group], b.group().keys));
  }
  return Steps(std::move(pairs));
}

void zero_keys(RankBuilder& b, const SlotView& view, std::int32_t dims) {
  const HeadRange kv = b.heads_kv();
  b.zero({view.slot, 0, b.group().seq_kv, 1, kv.first - view.head_origin, kv.count, view.dim, dims},
         0);
}

Attend attend_of(const RankBuilder& b, const GroupTensors& t, const Travellers& rows, int s) {
  const std::int32_t origin = b.heads().first;
  Attend a;
  a.head = origin;
  a.heads = b.heads().count;
  a.q = view(rows.wide[s], origin);
  a.dout = view(rows.wide[s], origin, b.dim());
  a.lse = view(rows.narrow[s], origin);
  a.delta = view(rows.narrow[s], origin, 1);
  a.k = t.k;
  a.v = t.v;
  a.dq = view(s == 0 ? rows.sum[0] : rows.part, origin);
  a.dq_assign = true;
  return a;
}

}  // namespace

GroupGradients ring_queries_backward(RankBuilder& b, const GroupTensors& t) {
  const Ring ring(b);
  const Steps steps = steps_of(b, ring);
  const Travellers rows = traveller_slots(b);
  pack(b, t, rows);
  GroupGradients g = dkv_target(b, DType::f32);
  if (steps.first < 0) {
    zero_keys(b, g.dk, b.dim());
    zero_keys(b, g.dv, b.dim_v());
  }
  b.next_round();
  for (int s = 0; s < ring.size; ++s) {
    const Group& chunk = ring.group(s);
    if (s + 1 < ring.size) {
      pass_on(b, ring, rows.wide, s);
      pass_on(b, ring, rows.narrow, s);
    }
    if (steps.busy(s)) {
      Attend a = attend_of(b, t, rows, s);
      a.dk = g.dk;
      a.dv = g.dv;
      a.dkv_assign = s == steps.first;
      b.attend(a, b.rows_of(ring.chunk(s)), segments_of(b.group().keys), s, steps.of(s));
      if (s > 0) b.reduce(rows_in(b, rows.part, chunk), rows_in(b, rows.sum[s], chunk), false, s);
    } else if (s == 0) {
      b.zero(rows_in(b, rows.sum[0], chunk), s);
    }
    // As in ring.cpp: the next rows, whose slots are free by now, go in the same round.
    b.next_round();
    pass_on(b, ring, rows.sum, s);
  }
  g.dq = view(rows.sum[ring.size], b.heads().first);
  return g;
}

}  // namespace annulus::attn
