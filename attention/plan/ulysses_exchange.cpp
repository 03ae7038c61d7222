// What comes in: q, K, V, dO and statistics. ulysses_results.cpp: what goes home.

#include "attention/plan/ulysses_exchange.h"

namespace annulus::attn {

HeadExchange::HeadExchange(RankBuilder& b)
    : b_(b),
      stages_sources_(b.stages_sources()),
      stages_results_(b.stages_results()),
      me_(b.ulysses_index()),
      peers_(peers(b)) {}

std::int32_t HeadExchange::numbers(std::string_view name) {
  return b_.slot(name, DType::f32, b_.group().seq, b_.heads().count, 1);
}

/// As the caller's lies, where that is an end of the transfers.
std::int32_t HeadExchange::group_lse() {
  const std::int32_t slot = numbers("lse of heads");
  const bool forward = b_.plan().request.pass == Pass::forward;
  return (forward ? stages_results_ : stages_sources_) ? slot : b_.heads_first(slot);
}

std::int32_t HeadExchange::group_delta() { return numbers("delta of heads"); }

std::int32_t HeadExchange::group_rows(std::string_view name, DType dtype, std::int32_t dim,
                                      bool staged) {
  const std::int32_t slot = b_.slot(name, dtype, b_.group().seq, b_.heads().count, dim);
  return staged ? b_.heads_first(slot) : slot;
}

HeadExchange::Rows HeadExchange::rows(Role role, std::string_view name, std::int32_t dim) {
  const std::int32_t source = stages_sources_ ? b_.heads_first(b_.like(role)) : b_.caller(role);
  return {role, source, group_rows(name, b_.problem().dtype, dim, stages_sources_)};
}

Block HeadExchange::k_of(const KeyPair& keys) const {
  return with_dims(b_.whole(keys.k.slot), keys.k.dim, b_.dim());
}

Block HeadExchange::v_of(const KeyPair& keys) const {
  return with_dims(b_.whole(keys.v.slot), keys.v.dim, b_.dim_v());
}

std::vector<Block> HeadExchange::pieces(const KeyPair& keys) const {
  if (keys.packed()) return {b_.whole(keys.k.slot)};
  return {k_of(keys), v_of(keys)};
}

KeyPair HeadExchange::packed(std::string_view name, DType dtype, std::int64_t tokens,
                             HeadRange heads) {
  const std::int32_t slot =
      b_.heads_first(b_.slot(name, dtype, tokens, heads.count, b_.dim() + b_.dim_v()));
  return {view(slot, heads.first), view(slot, heads.first, b_.dim())};
}

/// Of the group. In one slot where what travels is.
KeyPair HeadExchange::group_keys(std::string_view both, std::string_view k, std::string_view v,
                                 DType dtype, bool staged) {
  const HeadRange heads = b_.heads_kv();
  const std::int64_t tokens = b_.group().seq_kv;
  if (staged) return packed(both, dtype, tokens, heads);
  return {view(b_.slot(k, dtype, tokens, heads.count, b_.dim()), heads.first),
          view(b_.slot(v, dtype, tokens, heads.count, b_.dim_v()), heads.first)};
}

/// Staged, they are packed and travel as one.
void HeadExchange::keys() {
  sources_ = {view(b_.caller(Role::k), 0), view(b_.caller(Role::v), 0)};
  if (stages_sources_) {
    const KeyPair callers = sources_;
    sources_ = packed_home();
    const HeadRange others = heads_of_others(b_, true);
    b_.copy(heads_in(k_of(callers), others), heads_in(k_of(sources_), others), 0);
    b_.copy(heads_in(v_of(callers), others), heads_in(v_of(sources_), others), 0);
  }
  keys_ =
      group_keys("kv of heads", "k of heads", "v of heads", b_.problem().dtype, stages_sources_);
}

void HeadExchange::give(int i, const Rows& rows) {
  stage(rows, i);
  for (const int m : peers_) {
    b_.transfer(true, rank_of(b_, m), heads_in(b_.whole(rows.source), slice_rows(b_, m, i)), i,
                b_.source_mover());
  }
}

void HeadExchange::take(int i, const Rows& rows) {
  const Block to = heads_in(b_.whole(rows.target), slice_rows(b_, me_, i), b_.heads().first);
  for (const int m : peers_) {
    b_.transfer(false, rank_of(b_, m), tokens_of(b_, to, m, false), i, b_.source_mover());
  }
}

/// One slice: in one copy.
void HeadExchange::stage(const Rows& rows, int i) {
  const std::int32_t from = b_.caller(rows.role);
  if (rows.source == from) return;
  const auto copy = [&](HeadRange heads) {
    b_.copy(heads_in(b_.whole(from), heads), heads_in(b_.whole(rows.source), heads), i);
  };
  if (slices() == 1) return copy(heads_of_others(b_, false));
  for (const int m : peers_) copy(slice_rows(b_, m, i));
}

void HeadExchange::give_keys(int i) {
  for (const int m : peers_) {
    for (const Block& piece : pieces(sources_)) {
      b_.transfer(true, rank_of(b_, m), heads_in(piece, slice_keys(b_, m, i)), i,
                  b_.source_mover());
    }
  }
}

void HeadExchange::take_keys(int i) {
  const HeadRange heads = slice_keys(b_, me_, i);
  for (const int m : peers_) {
    for (const Block& piece : pieces(keys_)) {
      const Block to = heads_in(piece, heads, b_.heads_kv().first);
      b_.transfer(false, rank_of(b_, m), tokens_of(b_, to, m, true), i, b_.source_mover());
    }
  }
}

void HeadExchange::copy_own(std::initializer_list<const Rows*> rows) {
  const auto copy = [&](Role role, const Block& to, bool keys) {
    b_.copy(heads_in(b_.whole(b_.caller(role)), keys ? b_.heads_kv() : b_.heads()),
            tokens_of(b_, to, me_, keys), 0);
  };
  copy(Role::k, k_of(keys_), true);
  copy(Role::v, v_of(keys_), true);
  for (const Rows* r : rows) copy(r->role, b_.whole(r->target), false);
}

/// A number for each own row and head of a member, in one piece: as part of a tensor of all heads
/// it would be rows of a few words for a copy engine.
std::int32_t HeadExchange::part(std::string_view name, int member) {
  return b_.slot(name, DType::f32, b_.plan().sharding.seq_local(b_.rank()),
                 heads_of(b_, member, false).count, 1);
}

/// Others' own rows of lse: staged, or where the caller has them.
Block HeadExchange::lse_source(int member) {
  const std::int32_t all = b_.caller(Role::lse);
  const Block theirs = heads_in(b_.whole(all), heads_of(b_, member, false));
  if (!stages_sources_) {
    b_.heads_first(all);
    return theirs;
  }
  const Block staged = b_.whole(part("lse part", member));
  b_.copy(theirs, staged, 0);
  return staged;
}

void HeadExchange::exchange_statistics(std::int32_t lse, std::int32_t delta) {
  const auto caller = [&](Role role, int member) {
    return heads_in(b_.whole(b_.caller(role)), heads_of(b_, member, false));
  };
  const auto sums = [&](int member, const Block& to) {
    b_.row_sums(caller(Role::dout, member), caller(Role::out, member), to, 0);
  };
  // All flags behind all kernels: one call.
  std::vector<Block> given;
  for (const int m : peers_) given.push_back(lse_source(m));
  for (const int m : peers_) {
    given.push_back(b_.whole(part("delta part", m)));
    sums(m, given.back());
  }
  const auto mover = [&](bool of_lse) { return of_lse ? b_.source_mover() : Mover::any; };
  for (std::size_t i = 0; i < given.size(); ++i) {
    b_.transfer(true, rank_of(b_, peers_[i % peers_.size()]), given[i], 0,
                mover(i < peers_.size()));
  }
  b_.copy(caller(Role::lse, me_), tokens_of(b_, b_.whole(lse), me_, false), 0);
  sums(me_, tokens_of(b_, b_.whole(delta), me_, false));
  for (const std::int32_t to : {lse, delta}) {
    for (const int m : peers_) {
      b_.transfer(false, rank_of(b_, m), tokens_of(b_, b_.whole(to), m, false), 0,
                  mover(to == lse));
    }
  }
}

Attend HeadExchange::attend(int i, std::int32_t q, std::int32_t lse) const {
  const HeadRange heads = slice_rows(b_, me_, i);
  Attend a;
  a.head = heads.first;
  a.heads = heads.count;
  a.q = view(q, b_.heads().first);
  a.k = keys_.k;
  a.v = keys_.v;
  a.lse = view(lse, b_.heads().first);
  return a;
}

}  // namespace annulus::attn
