// Ulysses (Jacobs et al. 2023): an all-to-all gives each rank of a group some heads of all the
// group's tokens; another one gives the results back. Heads need not divide, and a key/value head
// that two ranks' query heads read is sent to both; its gradient is summed by the owner. Here all
// of it comes before the attends of a group, or after them; ulysses_slices.cpp: where no ring
// follows.

#include "attention/plan/stages.h"
#include "attention/plan/ulysses_exchange.h"

#include <algorithm>

namespace annulus::attn {
namespace {

/// Own tokens, all heads -> the group's tokens, own heads. `target` holds the rank's heads.
void scatter(RankBuilder& b, Role role, const Block& target, bool keys) {
  const std::int32_t source = b.source(role, heads_of_others(b, keys));
  if (!keys && b.stages_sources()) b.heads_first(source);
  for (const int m : peers(b)) {
    b.transfer(true, rank_of(b, m), heads_in(b.whole(source), heads_of(b, m, keys)), 0,
               b.source_mover());
  }
  const int me = b.ulysses_index();
  b.copy(heads_in(b.whole(b.caller(role)), heads_of(b, me, keys)), tokens_of(b, target, me, keys),
         0);
  // All that is given comes before the first wait, so that one queue is enough.
  for (const int m : peers(b)) {
    b.transfer(false, rank_of(b, m), tokens_of(b, target, m, keys), 0, b.source_mover());
  }
}

/// The group's tokens, own heads -> own tokens, all heads (a caller's tensor). What comes from
/// others may land in a slot of its own: see land().
void send_home(RankBuilder& b, const Block& source, Role role, std::int32_t landing, bool keys) {
  const int step = b.plan().request.mesh.ring;
  const int me = b.ulysses_index();
  const HeadRange mine = heads_of(b, me, keys);
  const Block to = b.whole(b.caller(role));
  b.copy(tokens_of(b, source, me, keys), with_heads(to, mine.first, mine.count), step);
  for (const int m : peers(b)) {
    b.transfer(true, rank_of(b, m), tokens_of(b, source, m, keys), step, b.result_mover());
  }
  for (const int m : peers(b)) {
    const HeadRange theirs = heads_of(b, m, keys);
    b.transfer(false, rank_of(b, m), with_heads(b.whole(landing), theirs.first, theirs.count), step,
               b.result_mover());
  }
}

void land(RankBuilder& b, std::int32_t landing, Role role, bool keys) {
  const std::int32_t to = b.caller(role);
  if (landing == to) return;
  for (const int m : peers(b)) {
    const HeadRange theirs = heads_of(b, m, keys);
    b.copy(with_heads(b.whole(landing), theirs.first, theirs.count),
           with_heads(b.whole(to), theirs.first, theirs.count), b.plan().request.mesh.ring);
  }
}

/// A result on its way home.
struct Home {
  Block source;
  Role role;
  bool keys;
  std::int32_t landing = -1;
};

/// All of them in one round.
void gather(RankBuilder& b, std::vector<Home> results) {
  for (Home& h : results) {
    h.landing = b.landing(h.role);
    if (!h.keys && (b.stages_results() || h.role == Role::lse)) b.heads_first(h.landing);
    send_home(b, h.source, h.role, h.landing, h.keys);
  }
  for (const Home& h : results) land(b, h.landing, h.role, h.keys);
}

std::int32_t rows_slot(RankBuilder& b, std::string_view name, DType dtype, std::int32_t dim) {
  return b.slot(name, dtype, b.group().seq, b.heads().count, dim);
}

/// The same, of which others give what they hold the tokens of, or get it: as that lies.
std::int32_t exchanged(RankBuilder& b, std::string_view name, DType dtype, std::int32_t dim,
                       bool staged) {
  const std::int32_t slot = rows_slot(b, name, dtype, dim);
  return staged ? b.heads_first(slot) : slot;
}

SlotView scattered_rows(RankBuilder& b, Role role, std::string_view name, DType dtype,
                        std::int32_t dim) {
  const std::int32_t slot = exchanged(b, name, dtype, dim, b.stages_sources());
  scatter(b, role, b.whole(slot), false);
  return view(slot, b.heads().first);
}

/// Row sums of dO * O.
std::int32_t own_delta(RankBuilder& b) {
  const std::int32_t delta = b.slot("delta", DType::f32, b.plan().sharding.seq_local(b.rank()),
                                    static_cast<std::int32_t>(b.problem().heads), 1);
  b.row_sums(b.whole(b.caller(Role::dout)), b.whole(b.caller(Role::out)), b.whole(delta), 0);
  return delta;
}

GroupTensors callers(RankBuilder& b, bool pack, std::int64_t kv_tokens) {
  GroupTensors t;
  t.q = view(b.caller(Role::q), 0);
  t.k = view(b.caller(Role::k), 0);
  t.v = view(b.caller(Role::v), 0);
  t.lse = view(b.caller(Role::lse), 0);
  if (b.plan().request.pass == Pass::forward) {
    t.out = view(b.caller(Role::out), 0);
  } else {
    t.dout = view(b.caller(Role::dout), 0);
    t.delta = view(own_delta(b), 0);
  }
  if (pack) {
    t.packed_kv =
        b.slot("kv", b.problem().dtype, kv_tokens, b.heads_kv().count, b.dim() + b.dim_v());
    const Block own = with_tokens(b.whole(t.packed_kv), 0, b.group().seq_kv);
    b.copy(b.whole(t.k.slot), with_dims(own, 0, b.dim()), 0);
    b.copy(b.whole(t.v.slot), with_dims(own, b.dim(), b.dim_v()), 0);
  }
  return t;
}

/// A key/value head with one reader goes home rounded; with several, owners add in fp32.
void gather_once(RankBuilder& b, const Block& dq, const GroupGradients& g) {
  const HeadRange kv = b.heads_kv();
  std::int32_t slot = g.dk.slot;
  const Block grads = with_tokens(b.whole(slot), 0, b.group().seq_kv);
  if (b.problem().dtype != DType::f32) {
    slot =
        b.slot("dkv rounded", b.problem().dtype, b.group().seq_kv, kv.count, b.dim() + b.dim_v());
    b.convert(grads, b.whole(slot), b.plan().request.mesh.ring);
  }
  const Block out = with_tokens(b.whole(slot), 0, b.group().seq_kv);
  gather(b, {{dq, Role::dq, false},
             {with_dims(out, 0, b.dim()), Role::dk, true},
             {with_dims(out, b.dim(), b.dim_v()), Role::dv, true}});
}

void gather_shared(RankBuilder& b, const Block& dq, const GroupGradients& g) {
  gather(b, {{dq, Role::dq, false}});
  b.next_round();
  const int step = b.plan().request.mesh.ring;
  const int members = b.plan().request.mesh.ulysses;
  const std::int64_t own = b.plan().sharding.seq_kv_local(b.rank());
  const std::int32_t width = b.dim() + b.dim_v();
  const Block mine = with_tokens(b.whole(g.dk.slot), 0, b.group().seq_kv);
  std::vector<std::int32_t> parts(static_cast<std::size_t>(members), -1);
  for (const int m : peers(b)) {
    b.transfer(true, rank_of(b, m), tokens_of(b, mine, m, true), step);
  }
  for (const int m : peers(b)) {
    std::int32_t& part = parts[static_cast<std::size_t>(m)];
    part = b.slot("dkv part", DType::f32, own, heads_of(b, m, true).count, width);
    b.transfer(false, rank_of(b, m), b.whole(part), step);
  }
  const std::int32_t sum =
      b.slot("dkv sum", DType::f32, own, static_cast<std::int32_t>(*b.problem().heads_kv), width);
  b.zero(b.whole(sum), step);
  for (int m = 0; m < members; ++m) {
    const HeadRange kv = heads_of(b, m, true);
    const Block part = m == b.ulysses_index() ? tokens_of(b, mine, m, true)
                                              : b.whole(parts[static_cast<std::size_t>(m)]);
    b.reduce(part, with_heads(b.whole(sum), kv.first, kv.count), false, step);
  }
  b.convert(with_dims(b.whole(sum), 0, b.dim()), b.whole(b.caller(Role::dk)), step);
  b.convert(with_dims(b.whole(sum), b.dim(), b.dim_v()), b.whole(b.caller(Role::dv)), step);
}

/// Degree 1: what is not in the caller's tensors yet is rounded into them.
void round_in_place(RankBuilder& b, const GroupGradients& g) {
  const int step = b.plan().request.mesh.ring;
  const auto finish = [&](const SlotView& from, Role role) {
    const std::int32_t to = b.caller(role);
    if (from.slot == to) return;
    const Block target = b.whole(to);
    b.convert({from.slot, 0, target.tokens, 1, 0, target.heads, from.dim, target.dims}, target,
              step);
  };
  finish(g.dq, Role::dq);
  finish(g.dk, Role::dk);
  finish(g.dv, Role::dv);
}

}  // namespace

GroupTensors scatter_heads(RankBuilder& b, bool pack, std::int64_t kv_tokens) {
  if (b.plan().request.mesh.ulysses == 1) return callers(b, pack, kv_tokens);
  const DType dtype = b.problem().dtype;
  const bool forward = b.plan().request.pass == Pass::forward;
  GroupTensors t;
  t.q = scattered_rows(b, Role::q, "q of heads", dtype, b.dim());
  const std::int32_t kv = b.slot("kv of heads", dtype, std::max(kv_tokens, b.group().seq_kv),
                                 b.heads_kv().count, b.dim() + b.dim_v());
  const Block own = with_tokens(b.whole(kv), 0, b.group().seq_kv);
  scatter(b, Role::k, with_dims(own, 0, b.dim()), true);
  scatter(b, Role::v, with_dims(own, b.dim(), b.dim_v()), true);
  t.k = view(kv, b.heads_kv().first);
  t.v = view(kv, b.heads_kv().first, b.dim());
  if (pack) t.packed_kv = kv;
  if (forward) {
    t.out =
        view(exchanged(b, "out of heads", dtype, b.dim_v(), b.stages_results()), b.heads().first);
    t.lse = view(exchanged(b, "lse of heads", DType::f32, 1, true), b.heads().first);
  } else {
    t.dout = scattered_rows(b, Role::dout, "dout of heads", dtype, b.dim_v());
    HeadExchange x(b);
    const std::int32_t lse = x.group_lse();
    const std::int32_t delta = x.group_delta();
    x.exchange_statistics(lse, delta);
    t.lse = view(lse, b.heads().first);
    t.delta = view(delta, b.heads().first);
  }
  return t;
}

void gather_heads_forward(RankBuilder& b, const GroupTensors& t) {
  if (b.plan().request.mesh.ulysses == 1) return;
  b.next_stage();
  gather(b, {{b.whole(t.out.slot), Role::out, false}, {b.whole(t.lse.slot), Role::lse, false}});
}

void gather_heads_backward(RankBuilder& b, const GroupGradients& g) {
  if (b.plan().request.mesh.ulysses == 1) {
    round_in_place(b, g);
    return;
  }
  std::int32_t dq = g.dq.slot;
  // What travelled has room for the longest group, and lies tokens first.
  if (b.problem().dtype != DType::f32 || b.plan().moves_queries) {
    dq = exchanged(b, "dq rounded", b.problem().dtype, b.dim(), b.stages_results());
    b.convert(with_tokens(b.whole(g.dq.slot), 0, b.group().seq), b.whole(dq),
              b.plan().request.mesh.ring);
  }
  b.next_stage();
  (b.plan().kv_heads_shared ? gather_shared : gather_once)(b, b.whole(dq), g);
}

SlotView dq_target(RankBuilder& b) {
  if (b.plan().request.mesh.ulysses == 1 && b.problem().dtype == DType::f32) {
    return view(b.caller(Role::dq), 0);
  }
  const std::int32_t dq = rows_slot(b, "dq", DType::f32, b.dim());
  if (b.plan().request.mesh.ulysses > 1 && b.stages_results()) b.heads_first(dq);
  return view(dq, b.heads().first);
}

}  // namespace annulus::attn
