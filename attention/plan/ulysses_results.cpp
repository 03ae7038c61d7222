// What goes home: out and lse, dQ, dK and dV.

#include "attention/plan/ulysses_exchange.h"

namespace annulus::attn {

std::int32_t HeadExchange::result_rows(std::string_view name, DType dtype, std::int32_t dim) {
  return group_rows(name, dtype, dim, stages_results_);
}

KeyPair HeadExchange::result_keys(DType dtype, bool rounded) {
  return rounded ? group_keys("dkv rounded", "dk rounded", "dv rounded", dtype, stages_results_)
                 : group_keys("dkv", "dk", "dv", dtype, stages_results_);
}

std::int32_t HeadExchange::rows_landing(Role role) {
  return stages_results_ ? b_.heads_first(b_.like(role)) : b_.caller(role);
}

void HeadExchange::give_rows(std::int32_t slot, int i) {
  const Block from = heads_in(b_.whole(slot), slice_rows(b_, me_, i), b_.heads().first);
  for (const int m : peers_) {
    b_.transfer(true, rank_of(b_, m), tokens_of(b_, from, m, false), i, b_.result_mover());
  }
}

void HeadExchange::take_rows(std::int32_t landing, int i) {
  for (const int m : peers_) {
    b_.transfer(false, rank_of(b_, m), heads_in(b_.whole(landing), slice_rows(b_, m, i)), i,
                b_.result_mover());
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

/// Of own tokens, all heads.
KeyPair HeadExchange::packed_home() {
  return packed("kv", b_.problem().dtype, b_.plan().sharding.seq_kv_local(b_.rank()),
                {0, static_cast<std::int32_t>(*b_.problem().heads_kv)});
}

KeyPair HeadExchange::gradients() {
  return {view(b_.caller(Role::dk), 0), view(b_.caller(Role::dv), 0)};
}

KeyPair HeadExchange::keys_landing() { return stages_results_ ? packed_home() : gradients(); }

void HeadExchange::convert_keys(const KeyPair& from, const KeyPair& to, int i) {
  const HeadRange heads = slice_keys(b_, me_, i);
  const std::int32_t origin = b_.heads_kv().first;
  const std::vector<Block> sources = pieces(from);
  const std::vector<Block> targets = pieces(to);
  for (std::size_t p = 0; p < sources.size(); ++p) {
    b_.convert(heads_in(sources[p], heads, origin), heads_in(targets[p], heads, origin), i);
  }
}

void HeadExchange::give_keys_home(const KeyPair& keys, int i) {
  const HeadRange heads = slice_keys(b_, me_, i);
  for (const int m : peers_) {
    for (const Block& piece : pieces(keys)) {
      const Block from = heads_in(piece, heads, b_.heads_kv().first);
      b_.transfer(true, rank_of(b_, m), tokens_of(b_, from, m, true), i, b_.result_mover());
    }
  }
}

void HeadExchange::take_keys_home(const KeyPair& landing, int i) {
  for (const int m : peers_) {
    for (const Block& piece : pieces(landing)) {
      b_.transfer(false, rank_of(b_, m), heads_in(piece, slice_keys(b_, m, i)), i,
                  b_.result_mover());
    }
  }
}

void HeadExchange::copy_own_keys_home(const KeyPair& keys) {
  const KeyPair to = gradients();
  const auto copy = [&](const Block& from, const Block& home) {
    b_.copy(tokens_of(b_, from, me_, true), heads_in(home, b_.heads_kv()), last());
  };
  copy(k_of(keys), k_of(to));
  copy(v_of(keys), v_of(to));
}

void HeadExchange::copy_keys_home(const KeyPair& landing) {
  const KeyPair to = gradients();
  if (landing.k.slot == to.k.slot) return;
  for_landed(true, [&](HeadRange heads) {
    b_.copy(heads_in(k_of(landing), heads), heads_in(k_of(to), heads), last());
    b_.copy(heads_in(v_of(landing), heads), heads_in(v_of(to), heads), last());
  });
}

std::vector<std::int32_t> HeadExchange::lse_landing() {
  const std::int32_t all = b_.caller(Role::lse);
  std::vector<std::int32_t> slots(b_.plan().heads.size(), all);
  if (!stages_results_) {
    b_.heads_first(all);
    return slots;
  }
  for (const int m : peers_) slots[static_cast<std::size_t>(m)] = part("lse part", m);
  return slots;
}

void HeadExchange::give_lse(std::int32_t slot) {
  for (const int m : peers_) {
    b_.transfer(true, rank_of(b_, m), tokens_of(b_, b_.whole(slot), m, false), last(),
                b_.result_mover());
  }
}

void HeadExchange::take_lse(const std::vector<std::int32_t>& landing) {
  for (const int m : peers_) {
    const Block to = b_.whole(landing[static_cast<std::size_t>(m)]);
    b_.transfer(false, rank_of(b_, m), stages_results_ ? to : heads_in(to, heads_of(b_, m, false)),
                last(), b_.result_mover());
  }
}

void HeadExchange::copy_lse_home(std::int32_t slot, const std::vector<std::int32_t>& landing) {
  const Block to = b_.whole(b_.caller(Role::lse));
  b_.copy(tokens_of(b_, b_.whole(slot), me_, false), heads_in(to, b_.heads()), last());
  if (!stages_results_) return;
  for (const int m : peers_) {
    b_.copy(b_.whole(landing[static_cast<std::size_t>(m)]), heads_in(to, heads_of(b_, m, false)),
            last());
  }
}

}  // namespace annulus::attn
