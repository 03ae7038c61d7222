#include "attention/plan/ulysses_exchange.h"

namespace annulus::attn {

HeadExchange::HeadExchange(RankBuilder& b)
    : b_(b),
      staged_(b.plan().request.options.stage_caller),
      me_(b.ulysses_index()),
      peers_(peers(b)) {}

std::int32_t HeadExchange::group_rows(std::string_view name, DType dtype, std::int32_t dim) {
  return b_.heads_first(b_.slot(name, dtype, b_.group().seq, b_.heads().count, dim));
}

std::int32_t HeadExchange::group_numbers(std::string_view name) {
  return b_.slot(name, DType::f32, b_.group().seq, b_.heads().count, 1);
}

std::int32_t HeadExchange::group_keys(std::string_view name, DType dtype) {
  const std::int32_t dim = b_.dim() + b_.dim_v();
  return b_.heads_first(b_.slot(name, dtype, b_.group().seq_kv, b_.heads_kv().count, dim));
}

std::int32_t HeadExchange::rows_landing(Role role) { return b_.heads_first(b_.landing(role)); }

HeadExchange::Rows HeadExchange::rows(Role role, std::string_view name, std::int32_t dim) {
  return {role, rows_landing(role), group_rows(name, b_.problem().dtype, dim)};
}

/// The K or V of a slot that holds both.
Block HeadExchange::keys_part(std::int32_t slot, Role role) const {
  return role == Role::k || role == Role::dk ? with_dims(b_.whole(slot), 0, b_.dim())
                                             : with_dims(b_.whole(slot), b_.dim(), b_.dim_v());
}

/// Staged, they are packed and travel as one.
std::int32_t HeadExchange::keys() {
  if (staged_) {
    packed_ = keys_landing();
    const HeadRange others = heads_of_others(b_, true);
    for (const Role role : {Role::k, Role::v}) {
      b_.copy(heads_in(b_.whole(b_.caller(role)), others),
              heads_in(keys_part(packed_, role), others), 0);
    }
  }
  kv_ = group_keys("kv of heads", b_.problem().dtype);
  return kv_;
}

void HeadExchange::give(int i, const Rows& rows) {
  stage(rows, i);
  for (const int m : peers_) {
    b_.transfer(true, rank_of(b_, m), heads_in(b_.whole(rows.source), slice_rows(b_, m, i)), i);
  }
}

void HeadExchange::take(int i, const Rows& rows) {
  const Block to = heads_in(b_.whole(rows.target), slice_rows(b_, me_, i), b_.heads().first);
  for (const int m : peers_) {
    b_.transfer(false, rank_of(b_, m), tokens_of(b_, to, m, false), i);
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
    const auto give = [&](std::int32_t slot) {
      b_.transfer(true, rank_of(b_, m), heads_in(b_.whole(slot), slice_keys(b_, m, i)), i);
    };
    if (staged_) {
      give(packed_);
    } else {
      give(b_.caller(Role::k));
      give(b_.caller(Role::v));
    }
  }
}

void HeadExchange::take_keys(int i) {
  const HeadRange heads = slice_keys(b_, me_, i);
  for (const int m : peers_) {
    const auto take = [&](const Block& block) {
      const Block to = heads_in(block, heads, b_.heads_kv().first);
      b_.transfer(false, rank_of(b_, m), tokens_of(b_, to, m, true), i);
    };
    if (staged_) {
      take(b_.whole(kv_));
    } else {
      take(keys_part(kv_, Role::k));
      take(keys_part(kv_, Role::v));
    }
  }
}

void HeadExchange::copy_own(std::initializer_list<const Rows*> rows) {
  for (const Role role : {Role::k, Role::v}) {
    b_.copy(heads_in(b_.whole(b_.caller(role)), b_.heads_kv()),
            tokens_of(b_, keys_part(kv_, role), me_, true), 0);
  }
  for (const Rows* r : rows) {
    b_.copy(heads_in(b_.whole(b_.caller(r->role)), b_.heads()),
            tokens_of(b_, b_.whole(r->target), me_, false), 0);
  }
}

/// A number for each own row and head of a member, in one piece: as part of a tensor of all heads
/// it would be rows of a few words for a copy engine.
std::int32_t HeadExchange::part(std::string_view name, int member) {
  return b_.slot(name, DType::f32, b_.plan().sharding.seq_local(b_.rank()),
                 heads_of(b_, member, false).count, 1);
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
  for (const int m : peers_) {
    given.push_back(caller(Role::lse, m));
    if (!staged_) continue;
    const Block staged = b_.whole(part("lse part", m));
    b_.copy(given.back(), staged, 0);
    given.back() = staged;
  }
  for (const int m : peers_) {
    given.push_back(b_.whole(part("delta part", m)));
    sums(m, given.back());
  }
  for (std::size_t i = 0; i < given.size(); ++i) {
    b_.transfer(true, rank_of(b_, peers_[i % peers_.size()]), given[i], 0);
  }
  b_.copy(caller(Role::lse, me_), tokens_of(b_, b_.whole(lse), me_, false), 0);
  sums(me_, tokens_of(b_, b_.whole(delta), me_, false));
  for (const std::int32_t to : {lse, delta}) {
    for (const int m : peers_) {
      b_.transfer(false, rank_of(b_, m), tokens_of(b_, b_.whole(to), m, false), 0);
    }
  }
}

Attend HeadExchange::attend(int i, std::int32_t q, std::int32_t lse) const {
  const HeadRange heads = slice_rows(b_, me_, i);
  Attend a;
  a.head = heads.first;
  a.heads = heads.count;
  a.q = view(q, b_.heads().first);
  a.k = view(kv_, b_.heads_kv().first);
  a.v = view(kv_, b_.heads_kv().first, b_.dim());
  a.lse = view(lse, b_.heads().first);
  return a;
}

void HeadExchange::give_rows(std::int32_t slot, int i) {
  const Block from = heads_in(b_.whole(slot), slice_rows(b_, me_, i), b_.heads().first);
  for (const int m : peers_) {
    b_.transfer(true, rank_of(b_, m), tokens_of(b_, from, m, false), i);
  }
}

void HeadExchange::take_rows(std::int32_t landing, int i) {
  for (const int m : peers_) {
    b_.transfer(false, rank_of(b_, m), heads_in(b_.whole(landing), slice_rows(b_, m, i)), i);
  }
}

/// Heads of a member that come before its last slice.
HeadRange HeadExchange::before_last(int member, bool keys) const {
  const HeadRange all = heads_of(b_, member, keys);
  const HeadRange late = keys ? slice_keys(b_, member, last()) : slice_rows(b_, member, last());
  return {all.first, all.count - late.count};
}

/// Calls fn(heads) for what came of each other member: of the last slice last.
template <typename Fn>
void HeadExchange::for_landed(bool keys, Fn fn) {
  for (const int m : peers_) fn(before_last(m, keys));
  for (const int m : peers_) {
    fn(keys ? slice_keys(b_, m, last()) : slice_rows(b_, m, last()));
  }
}

void HeadExchange::copy_own_rows_home(std::int32_t slot, Role role) {
  b_.copy(tokens_of(b_, b_.whole(slot), me_, false),
          heads_in(b_.whole(b_.caller(role)), b_.heads()), last());
}

void HeadExchange::copy_rows_home(std::int32_t landing, Role role) {
  const std::int32_t to = b_.caller(role);
  if (landing == to) return;
  for_landed(false, [&](HeadRange heads) {
    b_.copy(heads_in(b_.whole(landing), heads), heads_in(b_.whole(to), heads), last());
  });
}

std::int32_t HeadExchange::keys_landing() {
  if (!staged_) return -1;
  return b_.heads_first(
      b_.slot("kv", b_.problem().dtype, b_.plan().sharding.seq_kv_local(b_.rank()),
              static_cast<std::int32_t>(*b_.problem().heads_kv), b_.dim() + b_.dim_v()));
}

void HeadExchange::give_keys_home(std::int32_t slot, int i) {
  const HeadRange heads = slice_keys(b_, me_, i);
  for (const int m : peers_) {
    const auto give = [&](const Block& block) {
      const Block from = heads_in(block, heads, b_.heads_kv().first);
      b_.transfer(true, rank_of(b_, m), tokens_of(b_, from, m, true), i);
    };
    if (staged_) {
      give(b_.whole(slot));
    } else {
      give(keys_part(slot, Role::dk));
      give(keys_part(slot, Role::dv));
    }
  }
}

void HeadExchange::take_keys_home(std::int32_t landing, int i) {
  for (const int m : peers_) {
    const auto take = [&](std::int32_t slot) {
      b_.transfer(false, rank_of(b_, m), heads_in(b_.whole(slot), slice_keys(b_, m, i)), i);
    };
    if (staged_) {
      take(landing);
    } else {
      take(b_.caller(Role::dk));
      take(b_.caller(Role::dv));
    }
  }
}

void HeadExchange::copy_own_keys_home(std::int32_t slot) {
  for (const Role role : {Role::dk, Role::dv}) {
    b_.copy(tokens_of(b_, keys_part(slot, role), me_, true),
            heads_in(b_.whole(b_.caller(role)), b_.heads_kv()), last());
  }
}

void HeadExchange::copy_keys_home(std::int32_t landing) {
  if (!staged_) return;
  for_landed(true, [&](HeadRange heads) {
    for (const Role role : {Role::dk, Role::dv}) {
      b_.copy(heads_in(keys_part(landing, role), heads), heads_in(b_.whole(b_.caller(role)), heads),
              last());
    }
  });
}

std::vector<std::int32_t> HeadExchange::lse_landing() {
  std::vector<std::int32_t> slots(b_.plan().heads.size(), b_.caller(Role::lse));
  if (!staged_) return slots;
  for (const int m : peers_) slots[static_cast<std::size_t>(m)] = part("lse part", m);
  return slots;
}

void HeadExchange::give_lse(std::int32_t slot) {
  for (const int m : peers_) {
    b_.transfer(true, rank_of(b_, m), tokens_of(b_, b_.whole(slot), m, false), last());
  }
}

void HeadExchange::take_lse(const std::vector<std::int32_t>& landing) {
  for (const int m : peers_) {
    const Block to = b_.whole(landing[static_cast<std::size_t>(m)]);
    b_.transfer(false, rank_of(b_, m), staged_ ? to : heads_in(to, heads_of(b_, m, false)), last());
  }
}

void HeadExchange::copy_lse_home(std::int32_t slot, const std::vector<std::int32_t>& landing) {
  const Block to = b_.whole(b_.caller(Role::lse));
  b_.copy(tokens_of(b_, b_.whole(slot), me_, false), heads_in(to, b_.heads()), last());
  if (!staged_) return;
  for (const int m : peers_) {
    b_.copy(b_.whole(landing[static_cast<std::size_t>(m)]), heads_in(to, heads_of(b_, m, false)),
            last());
  }
}

}  // namespace annulus::attn
