// Ulysses with all ranks in one group: a rank takes its heads in slices (head_slices.cpp). The next
// slices come in and the results of the one before go home while a slice is attended to.
//
// Copies within a GPU do not start beside an attend that fills it. So what others will fetch is
// staged before the first attend, the first slice first, and what others sent is copied out behind
// the last one. Between two attends stand flags alone, and in backward the rounding of gradients.
// In place (PlanOptions::give_in_place, land_in_place) neither is needed: owners write their heads
// into the others' slots, and fetch results into the caller's tensors.
//
// Each rank gives before it takes the same, so that one hardware queue is enough; what is taken
// beside an attend is enqueued behind it, so that the host and that queue come to the attend first.
//
// What nothing hides, before the first attend and behind the last one, has a round for each tensor:
// one is copied within the GPU, or rounded, while the one before it moves.

#include "attention/plan/ulysses_exchange.h"

#include <functional>
#include <vector>

namespace annulus::attn {
namespace {

using Inputs = std::initializer_list<const HeadExchange::Rows*>;

/// Slice i of all that comes in.
void give(HeadExchange& x, Inputs rows, int i) {
  x.give_keys(i);
  for (const HeadExchange::Rows* r : rows) x.give(i, *r);
}

void take(HeadExchange& x, Inputs rows, int i) {
  x.take_keys(i);
  for (const HeadExchange::Rows* r : rows) x.take(i, *r);
}

/// The first slice comes in; the others are staged and given.
template <typename Also>
void begin(RankBuilder& b, HeadExchange& x, Inputs rows, Also also) {
  b.next_round();
  x.give_keys(0);
  x.take_keys(0);
  for (const HeadExchange::Rows* r : rows) {
    b.next_round();
    x.give(0, *r);
    x.take(0, *r);
  }
  b.next_round();
  also();
  x.copy_own(rows);
  b.next_round();
  for (int i = 1; b.stages_sources() && i < x.slices(); ++i) give(x, rows, i);
}

/// The others come in beside the first attend: all in one round, or, where nothing is staged for
/// them, in one each, so that the second slice does not wait for the third.
void take_others(RankBuilder& b, HeadExchange& x, Inputs rows) {
  for (int i = 1; i < x.slices(); ++i) {
    if (!b.stages_sources()) {
      b.next_round();
      give(x, rows, i);
    }
    take(x, rows, i);
  }
}

/// A result: slice i of it goes, and is fetched from others.
struct Result {
  std::function<void(int)> give;
  std::function<void(int)> take;
};

/// Calls attend(i) for each slice, and the same of all results.
template <typename AttendTo>
void walk(RankBuilder& b, HeadExchange& x, Inputs rows, AttendTo attend,
          const std::vector<Result>& results) {
  for (int i = 0; i < x.slices(); ++i) {
    attend(i);
    if (i == 0) take_others(b, x, rows);
    for (const Result& r : results) {
      if (i > 0) r.take(i - 1);
    }
    b.next_round();
    for (const Result& r : results) {
      if (i < x.last()) r.give(i);
    }
  }
  for (const Result& r : results) {
    r.give(x.last());
    r.take(x.last());
    b.next_round();
  }
}

std::int64_t all_pairs(const RankBuilder& b) { return b.rows().pairs({0, *b.problem().seq_kv, 1}); }

/// Gradients of the group, and what of them goes home: rounded copies of those in fp32.
struct Gradients {
  std::int32_t dq = -1;
  std::int32_t dq_home = -1;
  KeyPair dkv;
  KeyPair dkv_home;
};

Gradients make_gradients(RankBuilder& b, HeadExchange& x) {
  Gradients g;
  g.dq = g.dq_home = x.result_rows("dq", DType::f32, b.dim());
  g.dkv = g.dkv_home = x.result_keys(b.own_dkv(), false);
  const DType dtype = b.problem().dtype;
  if (dtype != DType::f32) g.dq_home = x.result_rows("dq rounded", dtype, b.dim());
  if (dtype != b.own_dkv()) g.dkv_home = x.result_keys(dtype, true);
  return g;
}

void round_rows(RankBuilder& b, const Gradients& g, int i) {
  if (g.dq == g.dq_home) return;
  const HeadRange heads = slice_rows(b, b.ulysses_index(), i);
  const std::int32_t origin = b.heads().first;
  b.convert(heads_in(b.whole(g.dq), heads, origin), heads_in(b.whole(g.dq_home), heads, origin), i);
}

void round_keys(HeadExchange& x, const Gradients& g, int i) {
  if (g.dkv.k.slot != g.dkv_home.k.slot) x.convert_keys(g.dkv, g.dkv_home, i);
}

}  // namespace

void sliced_forward(RankBuilder& b) {
  HeadExchange x(b);
  x.keys();
  const HeadExchange::Rows q = x.rows(Role::q, "q of heads", b.dim());
  const std::int32_t out = x.result_rows("out of heads", b.problem().dtype, b.dim_v());
  const std::int32_t lse = x.group_lse();
  begin(b, x, {&q}, [] {});
  const std::int32_t landing = x.rows_landing(Role::out);
  const std::vector<std::int32_t> lse_landing = x.lse_landing();
  const std::int64_t pairs = all_pairs(b);
  const auto attend = [&](int i) {
    Attend a = x.attend(i, q.target, lse);
    a.out = view(out, b.heads().first);
    a.finish = true;
    b.attend(a, segments_of(b.group().keys), i, pairs);
  };
  const auto give = [&](int i) {
    x.give_rows(out, i);
    if (i == x.last()) x.give_lse(lse);
  };
  const auto take = [&](int i) {
    x.take_rows(landing, i);
    if (i == x.last()) x.take_lse(lse_landing);
  };
  walk(b, x, {&q}, attend, {{give, take}});
  x.copy_own_rows_home(out, Role::out);
  x.copy_rows_home(landing, Role::out);
  x.copy_lse_home(lse, lse_landing);
}

void sliced_backward(RankBuilder& b) {
  HeadExchange x(b);
  x.keys();
  const HeadExchange::Rows q = x.rows(Role::q, "q of heads", b.dim());
  const HeadExchange::Rows dout = x.rows(Role::dout, "dout of heads", b.dim_v());
  const std::int32_t lse = x.group_lse();
  const std::int32_t delta = x.group_delta();
  begin(b, x, {&q, &dout}, [&] { x.exchange_statistics(lse, delta); });
  const Gradients g = make_gradients(b, x);
  const std::int32_t landing = x.rows_landing(Role::dq);
  const KeyPair keys_landing = x.keys_landing();
  const std::int64_t pairs = all_pairs(b);
  const auto attend = [&](int i) {
    Attend a = x.attend(i, q.target, lse);
    a.dout = view(dout.target, b.heads().first);
    a.delta = view(delta, b.heads().first);
    a.dq = view(g.dq, b.heads().first);
    a.dk = g.dkv.k;
    a.dv = g.dkv.v;
    a.dq_assign = true;
    a.dkv_assign = true;
    b.attend(a, segments_of(b.group().keys), i, pairs);
  };
  const auto give_dq = [&](int i) {
    round_rows(b, g, i);
    x.give_rows(g.dq_home, i);
  };
  const auto give_dkv = [&](int i) {
    round_keys(x, g, i);
    x.give_keys_home(g.dkv_home, i);
  };
  const auto take_dq = [&](int i) { x.take_rows(landing, i); };
  const auto take_dkv = [&](int i) { x.take_keys_home(keys_landing, i); };
  walk(b, x, {&q, &dout}, attend, {{give_dq, take_dq}, {give_dkv, take_dkv}});
  x.copy_own_rows_home(g.dq_home, Role::dq);
  x.copy_own_keys_home(g.dkv_home);
  x.copy_rows_home(landing, Role::dq);
  x.copy_keys_home(keys_landing);
}

}  // namespace annulus::attn
