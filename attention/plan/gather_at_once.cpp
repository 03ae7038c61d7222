// `gather` in one launch: all slices lie in one buffer, and the kernel takes them as they arrive.
// Backward: dK/dV of a slice go back to their owners while the kernel works on the next, and are
// added when it has ended: beside a kernel that fills a GPU no other one starts. Owners add in a
// fixed order: their own part, then those of the groups behind them, the nearest first.

#include "attention/plan/gather_exchange.h"

namespace annulus::attn {
namespace {

/// Where the parts of an owner's dK/dV come together: one slot for each other group.
class Parts {
 public:
  Parts(RankBuilder& b, Exchange& exchange) : b_(b), x_(exchange) {
    for (int d = 1; d < x_.groups(); ++d) {
      std::int64_t tokens = 0;
      for (const Run& run : x_.given(x_.group_at(-d))) tokens += run.count;
      slots_.push_back(x_.buffer("dkv part", DType::f32, tokens));
    }
    sum_ = b.slot("dkv", DType::f32, b.group().seq_kv, b.heads_kv().count, b.dim() + b.dim_v());
    std::int64_t own = 0;
    for (const Run& run : x_.taken(b.ring_index())) own += run.count;
    own_is_all_ = own == b.group().seq_kv;
    if (!own_is_all_) b.zero(b.whole(sum_), 0);
  }

  std::int32_t sum() const { return sum_; }

  /// Slice i of `dkv` goes to the keys' owners.
  void give(std::int32_t dkv, int i) {
    b_.next_round();
    for (int d = 1; d < x_.groups(); ++d) {
      const int to = x_.group_at(d);
      for (const Run& run : x_.received(to)) {
        b_.transfer(true, x_.rank_of(to), x_.part(dkv, i, run), i);
      }
      const int from = x_.group_at(-d);
      std::int64_t token = 0;
      for (const Run& run : x_.sent(from)) {
        b_.transfer(false, x_.rank_of(from), x_.part(slot(d), i, place(token, run)), i);
        token += run.count;
      }
    }
  }

  void add_all(std::int32_t dkv) {
    const int step = x_.slices();
    for (const Run& run : x_.taken(b_.ring_index())) {
      b_.reduce(x_.all_of(dkv, run), x_.all_own(sum_, run), own_is_all_, step);
    }
    for (int d = 1; d < x_.groups(); ++d) {
      std::int64_t token = 0;
      for (const Run& run : x_.sent(x_.group_at(-d))) {
        b_.reduce(x_.all_of(slot(d), place(token, run)), x_.all_own(sum_, run), false, step);
        token += run.count;
      }
    }
  }

 private:
  std::int32_t slot(int d) const { return slots_[static_cast<std::size_t>(d - 1)]; }
  static Run place(std::int64_t token, const Run& run) {
    return {0, token, run.count, 1, run.positions};
  }

  RankBuilder& b_;
  Exchange& x_;
  std::vector<std::int32_t> slots_;
  std::int32_t sum_ = -1;
  bool own_is_all_ = false;  ///< own rows see every own key: nothing is to be zeroed
};

}  // namespace

void gather_at_once_forward(RankBuilder& b, const GroupTensors& t) {
  Exchange x(b, t, b.plan().request.options.gather_launch);
  Attend a = x.attend(x.gather_all());
  a.out = t.out;
  a.finish = true;
  a.on_arrival = true;
  b.attend(a, x.segments(), 0);
}

GroupGradients gather_at_once_backward(RankBuilder& b, const GroupTensors& t) {
  Exchange x(b, t, b.plan().request.options.gather_launch);
  Parts parts(b, x);
  const std::int32_t dkv = x.buffer("dkv of all", DType::f32, x.tokens());
  GroupGradients g;
  g.dq = dq_target(b);
  Attend a = x.attend(x.gather_all());
  a.dout = t.dout;
  a.delta = t.delta;
  a.dq = g.dq;
  a.dq_assign = true;
  a.dk = view(dkv, a.k.head_origin);
  a.dv = view(dkv, a.k.head_origin, b.dim());
  a.dkv_assign = true;
  a.on_arrival = true;
  a.by_head = true;
  b.attend(a, x.segments(), 0);
  for (int i = 0; i < x.slices(); ++i) parts.give(dkv, i);
  parts.add_all(dkv);
  g.dk = view(parts.sum(), b.heads_kv().first);
  g.dv = view(parts.sum(), b.heads_kv().first, b.dim());
  return g;
}

}  // namespace annulus::attn
