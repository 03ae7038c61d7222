// Key/value heads are pulled from their owners, slice by slice (Llama 3, Dubey et al. 2024, section
// 3.3.2): slice i + 1 moves while slice i computes, two are held. A slice lands in global position
// order and holds only the keys that some row of the receiver sees. Or one launch takes all slices
// as they arrive (GatherLaunch): then all are held, in one buffer. Backward: each slice's dK/dV go
// back to their owners, who add them in a fixed order: their own, then from the next neighbour on.

#include "attention/plan/gather_exchange.h"

#include <algorithm>

namespace annulus::attn {
namespace {

/// Contributions an owner may hold at once: those of a round.
constexpr int kReceiveSlots = 4;

/// Owners add what came back for slice i, in a fixed order: their own part, then receivers' ones
/// from the nearest on, a few in a round.
class Return {
 public:
  Return(RankBuilder& b, Exchange& exchange) : b_(b), x_(exchange) {
    for (int g = 0; g < x_.groups(); ++g) widest_ = std::max(widest_, run_tokens(g));
    const int slots = std::min(kReceiveSlots, x_.groups() - 1);
    for (int i = 0; i < slots; ++i) {
      receive_.push_back(x_.buffer("dkv part", DType::f32, widest_));
    }
    sum_ = b.slot("dkv", DType::f32, b.group().seq_kv, b.heads_kv().count, b.dim() + b.dim_v());
    b.zero(b.whole(sum_), 0);
  }

  std::int32_t sum() const { return sum_; }

  void push(std::int32_t part, int i) {
    const int me = b_.ring_index();
    for (const Run& run : x_.given(me)) {
      b_.reduce(x_.part(part, i, run), x_.own(sum_, i, run), false, i);
    }
    const int slots = static_cast<int>(receive_.size());
    for (int d = 1; d < x_.groups(); d += slots)
      exchange(part, i, d, std::min(d + slots, x_.groups()));
  }

 private:
  /// The group that is `d` further.
  int at(int d) const { return (b_.ring_index() + d + x_.groups()) % x_.groups(); }

  std::int64_t run_tokens(int group) const {
    std::int64_t n = 0;
    for (const Run& run : x_.given(group)) n += run.count;
    return group == b_.ring_index() ? 0 : n;
  }

  /// Parts go to the groups that are first, ..., last - 1 further, and come from as far behind, so
  /// that each rank sends and receives the same number in a round.
  void exchange(std::int32_t part, int i, int first, int last) {
    b_.next_round();
    for (int d = first; d < last; ++d) {
      for (const Run& run : x_.taken(at(d))) {
        b_.transfer(true, x_.rank_of(at(d)), x_.part(part, i, run), i);
      }
    }
    for (int d = first; d < last; ++d) {
      for_received(at(-d), i, d - first, [&](const Run&, const Block& block) {
        b_.transfer(false, x_.rank_of(at(-d)), block, i);
      });
    }
    for (int d = first; d < last; ++d) {
      for_received(at(-d), i, d - first, [&](const Run& run, const Block& block) {
        b_.reduce(block, x_.own(sum_, i, run), false, i);
      });
    }
  }

  /// Calls fn(run, where it lands in receive slot `slot`) for what comes from a group.
  template <typename Fn>
  void for_received(int group, int i, int slot, Fn fn) {
    std::int64_t token = 0;
    for (const Run& run : x_.given(group)) {
      fn(run, x_.part(receive_[static_cast<std::size_t>(slot)], i,
                      {0, token, run.count, 1, run.positions}));
      token += run.count;
    }
  }

  RankBuilder& b_;
  Exchange& x_;
  std::vector<std::int32_t> receive_;
  std::int64_t widest_ = 0;
  std::int32_t sum_ = -1;
};

}  // namespace

namespace {

/// All slices in one launch.
void gather_at_once(RankBuilder& b, const GroupTensors& t) {
  Exchange x(b, t, b.plan().request.options.gather_launch);
  const std::int32_t buffer = x.buffer("kv", b.problem().dtype, x.tokens());
  for (int i = 0; i < x.slices(); ++i) x.pull(buffer, i);
  Attend a = x.attend(buffer);
  a.out = t.out;
  a.finish = true;
  a.on_arrival = true;
  b.attend(a, x.segments(), 0);
}

}  // namespace

void gather_forward(RankBuilder& b, const GroupTensors& t) {
  if (b.plan().request.options.gather_launch != GatherLaunch::slices) return gather_at_once(b, t);
  Exchange x(b, t, GatherLaunch::slices);
  const std::int32_t buffers[2] = {x.buffer("kv slice", b.problem().dtype, x.tokens()),
                                   x.buffer("kv slice", b.problem().dtype, x.tokens())};
  x.pull(buffers[0], 0);
  for (int i = 0; i < x.slices(); ++i) {
    if (i + 1 < x.slices()) x.pull(buffers[(i + 1) % 2], i + 1);
    Attend a = x.attend(buffers[i % 2], i);
    a.out = t.out;
    a.finish = true;
    b.attend(a, x.segments(), i);
  }
}

GroupGradients gather_backward(RankBuilder& b, const GroupTensors& t) {
  Exchange x(b, t, GatherLaunch::slices);
  Return back(b, x);
  const std::int32_t buffers[2] = {x.buffer("kv slice", b.problem().dtype, x.tokens()),
                                   x.buffer("kv slice", b.problem().dtype, x.tokens())};
  const std::int32_t parts[2] = {x.buffer("dkv slice", DType::f32, x.tokens()),
                                 x.buffer("dkv slice", DType::f32, x.tokens())};
  GroupGradients g;
  g.dq = dq_target(b);
  x.pull(buffers[0], 0);
  for (int i = 0; i < x.slices(); ++i) {
    if (i + 1 < x.slices()) x.pull(buffers[(i + 1) % 2], i + 1);
    Attend a = x.attend(buffers[i % 2], i);
    a.dout = t.dout;
    a.delta = t.delta;
    a.dq = g.dq;
    a.dq_assign = true;
    a.dk = view(parts[i % 2], a.k.head_origin);
    a.dv = view(parts[i % 2], a.k.head_origin, b.dim());
    a.dkv_assign = true;
    b.attend(a, x.segments(), i);
    back.push(parts[i % 2], i);
  }
  g.dk = view(back.sum(), b.heads_kv().first);
  g.dv = view(back.sum(), b.heads_kv().first, b.dim());
  return g;
}

}  // namespace annulus::attn
