// Ring attention (Liu et al. 2023): in step s, group g attends to the key/value chunk of group
// g - s while that chunk moves on to group g + 1. Two chunks are held. Backward: dK/dV travel with
// their chunk in fp32 and are home after R steps; each step's part is computed into a buffer of its
// own, so that the travelling sum may arrive as late as the part is done. ring_queries.cpp has the
// backward in which queries travel instead.

#include "attention/plan/ring_steps.h"
#include "attention/plan/stages.h"

#include <utility>
#include <vector>

namespace annulus::attn {
namespace {

Block chunk_of(const RankBuilder& b, std::int32_t slot, const Group& group) {
  return with_tokens(b.whole(slot), 0, group.seq_kv);
}

/// The chunk of step s goes on, the chunk of step s + 1 comes in.
void pass_on(RankBuilder& b, const Ring& ring, const Pair& slots, int s) {
  b.transfer(true, ring.next(), chunk_of(b, slots[s], ring.group(s)), s);
  b.transfer(false, ring.previous(), chunk_of(b, slots[s + 1], ring.group(s + 1)), s);
}

Pair kv_slots(RankBuilder& b, const GroupTensors& t) {
  return {{t.packed_kv, b.slot("kv", b.problem().dtype, b.plan().max_group_seq_kv,
                               b.heads_kv().count, b.dim() + b.dim_v())}};
}

/// Of own rows with the keys of each step.
Steps steps_of(const RankBuilder& b, const Ring& ring) {
  std::vector<std::int64_t> pairs;
  for (int s = 0; s < ring.size; ++s) pairs.push_back(b.pairs(ring.group(s).keys));
  return Steps(std::move(pairs));
}

/// Forward attends with their state: the first writes it, the last finishes. Kernels that cannot
/// resume write a second state, and merges follow.
class ForwardSteps {
 public:
  ForwardSteps(RankBuilder& b, const GroupTensors& t, Steps steps)
      : b_(b), t_(t), steps_(std::move(steps)) {
    // Rows that see nothing anywhere still get their O = 0 and LSE = -inf.
    if (steps_.first < 0) steps_.first = steps_.last = 0;
    if (steps_.first == steps_.last) return;
    state_ = b.problem().dtype == DType::f32 ? t.out : fresh_state("state");
    if (!b.plan().request.options.resume) {
      other_ = fresh_state("state of one step");
      other_lse_ = view(b.slot("lse of one step", DType::f32, b.group().seq, b.heads().count, 1),
                        b.heads().first);
    }
  }

  void attend(int s, const SlotView& k, const SlotView& v, const std::vector<Segment>& keys) {
    const bool first = s == steps_.first;
    const bool last = s == steps_.last;
    if (!steps_.busy(s) && !first) return;
    const bool merges = other_.slot >= 0 && !first;
    Attend a;
    a.head = b_.heads().first;
    a.heads = b_.heads().count;
    a.q = t_.q;
    a.k = k;
    a.v = v;
    a.lse = merges ? other_lse_ : t_.lse;
    a.state = merges ? other_ : state_;
    a.resume = !first && !merges;
    a.finish = last && !merges;
    if (a.finish) a.out = t_.out;
    b_.attend(a, keys, s, steps_.of(s));
    if (merges) merge(s, last);
  }

 private:
  SlotView fresh_state(std::string_view name) {
    return view(b_.slot(name, DType::f32, b_.group().seq, b_.heads().count, b_.dim_v()),
                b_.heads().first);
  }

  Block rows_of(const SlotView& v, std::int32_t dims) const {
    return {v.slot, 0,   b_.group().seq, 1, b_.heads().first - v.head_origin, b_.heads().count,
            v.dim,  dims};
  }

  void merge(int s, bool last) {
    Merge m;
    m.state = rows_of(state_, b_.dim_v());
    m.lse = rows_of(t_.lse, 1);
    m.other = rows_of(other_, b_.dim_v());
    m.other_lse = rows_of(other_lse_, 1);
    if (last) m.out = rows_of(t_.out, b_.dim_v());
    b_.merge(m, s);
  }

  RankBuilder& b_;
  const GroupTensors& t_;
  Steps steps_;
  SlotView state_;
  SlotView other_;
  SlotView other_lse_;
};

/// dK/dV of one backward ring: the travelling sum in two slots, the part of the present step.
struct Gradients {
  Pair sum;
  std::int32_t part;
};

Gradients gradient_slots(RankBuilder& b) {
  const auto make = [&](std::string_view name) {
    return b.slot(name, DType::f32, b.plan().max_group_seq_kv, b.heads_kv().count,
                  b.dim() + b.dim_v());
  };
  const std::int32_t first = make("dkv");
  const std::int32_t second = make("dkv");
  return {{{first, second}}, make("dkv part")};
}

}  // namespace

void ring_forward(RankBuilder& b, const GroupTensors& t) {
  const Ring ring(b);
  const Pair kv = kv_slots(b, t);
  ForwardSteps steps(b, t, steps_of(b, ring));
  const std::int32_t origin = b.heads_kv().first;
  for (int s = 0; s < ring.size; ++s) {
    b.next_round();
    if (s + 1 < ring.size) pass_on(b, ring, kv, s);
    steps.attend(s, view(kv[s], origin), view(kv[s], origin, b.dim()),
                 segments_of(ring.group(s).keys));
  }
}

GroupGradients ring_backward(RankBuilder& b, const GroupTensors& t) {
  const Ring ring(b);
  const Pair kv = kv_slots(b, t);
  const Gradients grads = gradient_slots(b);
  const Steps steps = steps_of(b, ring);
  const std::int32_t origin = b.heads_kv().first;
  GroupGradients g;
  g.dq = dq_target(b);
  if (steps.first < 0) {
    b.zero({g.dq.slot, 0, b.group().seq, 1, b.heads().first - g.dq.head_origin, b.heads().count, 0,
            b.dim()},
           0);
  }
  b.next_round();
  for (int s = 0; s < ring.size; ++s) {
    const Group& chunk = ring.group(s);
    if (s + 1 < ring.size) pass_on(b, ring, kv, s);
    const std::int32_t target = s == 0 ? grads.sum[0] : grads.part;
    if (steps.busy(s)) {
      Attend a;
      a.head = b.heads().first;
      a.heads = b.heads().count;
      a.q = t.q;
      a.k = view(kv[s], origin);
      a.v = view(kv[s], origin, b.dim());
      a.dout = t.dout;
      a.lse = t.lse;
      a.delta = t.delta;
      a.dq = g.dq;
      a.dk = view(target, origin);
      a.dv = view(target, origin, b.dim());
      a.dq_assign = s == steps.first;
      a.dkv_assign = true;
      b.attend(a, segments_of(chunk.keys), s, steps.of(s));
      if (s > 0) {
        b.reduce(chunk_of(b, grads.part, chunk), chunk_of(b, grads.sum[s], chunk), false, s);
      }
    } else if (s == 0) {
      b.zero(chunk_of(b, grads.sum[0], chunk), s);
    }
    // The sum of the next step's chunk comes in as this one leaves; after R steps it is the own
    // one. The next chunk, whose slot is free by now, goes in the same round.
    b.next_round();
    b.transfer(true, ring.next(), chunk_of(b, grads.sum[s], chunk), s);
    b.transfer(false, ring.previous(), chunk_of(b, grads.sum[s + 1], ring.group(s + 1)), s);
  }
  const std::int32_t home = grads.sum[ring.size];
  g.dk = view(home, origin);
  g.dv = view(home, origin, b.dim());
  return g;
}

}  // namespace annulus::attn
