// Ulysses with all ranks in one group: a rank takes its heads in slices (head_slices.cpp). The next
// slices come in and the results of the one before go home while a slice is attended to; what comes
// in is said and fetched before what goes home, so that nobody waits for an attend to begin one.
//
// Copies within a GPU do not start beside an attend that fills it. So what others will fetch is
// staged before the first attend, the first slice first, and what others sent is copied out behind
// the last one. Between two attends stands nothing but flags (backward: gradients are rounded).

#include "attention/plan/stages.h"
#include "attention/plan/ulysses_parts.h"

#include <algorithm>

namespace annulus::attn {
namespace {

class Slices {
 public:
  explicit Slices(RankBuilder& b)
      : b_(b),
        staged_(b.plan().request.options.stage_caller),
        me_(b.ulysses_index()),
        peers_(peers(b)),
        pairs_(b.rows().pairs({0, *b.problem().seq_kv, 1})) {}

  void forward() {
    kv_ = make_keys();
    q_ = make_rows(Role::q, "q of heads", b_.dim());
    out_ = group_rows("out of heads", b_.problem().dtype, b_.dim_v());
    lse_ = group_rows("lse of heads", DType::f32, 1);
    for (int i = 0; i < slices(); ++i) {
      bring(i, {&q_});
      if (i == 0) copy_own({&q_});
    }
    const std::int32_t landing = b_.landing(Role::out);
    const std::vector<std::int32_t> lse = make_lse_landing();
    const auto fetch = [&](int i) {
      take_rows(landing, i);
      if (i == last()) take_lse(lse);
    };
    for (int i = 0; i < slices(); ++i) {
      attend_forward(i);
      // Behind the next attend, so that one hardware queue does not hold it up.
      if (i > 0) fetch(i - 1);
      b_.next_round();
      give_rows(out_, i);
      if (i == last()) give_lse();
    }
    fetch(last());
    copy_home(out_, Role::out, landing);
    copy_lse_home(lse);
  }

 private:
  /// A caller's tensor, where transfers read it, and where its heads come together.
  struct Rows {
    Role role = Role::none;
    std::int32_t source = -1;
    std::int32_t target = -1;
  };

  int slices() const { return slices_of(b_); }
  int last() const { return slices() - 1; }
  HeadRange heads() const { return b_.heads(); }

  std::int32_t group_rows(std::string_view name, DType dtype, std::int32_t dim) {
    return b_.slot(name, dtype, b_.group().seq, heads().count, dim);
  }

  Rows make_rows(Role role, std::string_view name, std::int32_t dim) {
    return {role, b_.landing(role), group_rows(name, b_.problem().dtype, dim)};
  }

  /// K and V side by side; staged, they are packed and travel as one.
  std::int32_t make_keys() {
    const std::int32_t width = b_.dim() + b_.dim_v();
    if (staged_) {
      packed_ = b_.slot("kv", b_.problem().dtype, b_.plan().sharding.seq_kv_local(b_.rank()),
                        static_cast<std::int32_t>(*b_.problem().heads_kv), width);
      b_.copy(b_.whole(b_.caller(Role::k)), keys_part(packed_, Role::k), 0);
      b_.copy(b_.whole(b_.caller(Role::v)), keys_part(packed_, Role::v), 0);
    }
    return b_.slot("kv of heads", b_.problem().dtype, b_.group().seq_kv, b_.heads_kv().count,
                   width);
  }

  /// The K or V of a slot that holds both.
  Block keys_part(std::int32_t slot, Role role) const {
    return role == Role::k ? with_dims(b_.whole(slot), 0, b_.dim())
                           : with_dims(b_.whole(slot), b_.dim(), b_.dim_v());
  }

  /// Slice i comes in. All that is given comes before the first wait, so that one queue is enough.
  void bring(int i, const std::vector<const Rows*>& rows) {
    b_.next_round();
    give_keys(i);
    for (const Rows* r : rows) {
      stage(*r, i);
      for (const int m : peers_) {
        b_.transfer(true, rank_of(b_, m), heads_in(b_.whole(r->source), slice_rows(b_, m, i)), i);
      }
    }
    take_keys(i);
    for (const Rows* r : rows) {
      const Block target = heads_in(b_.whole(r->target), slice_rows(b_, me_, i), heads().first);
      for (const int m : peers_) {
        b_.transfer(false, rank_of(b_, m), tokens_of(b_, target, m, false), i);
      }
    }
  }

  /// One slice: all heads in one copy.
  void stage(const Rows& r, int i) {
    const std::int32_t from = b_.caller(r.role);
    if (r.source == from) return;
    if (slices() == 1) return b_.copy(b_.whole(from), b_.whole(r.source), i);
    for (const int m : peers_) {
      const HeadRange heads = slice_rows(b_, m, i);
      b_.copy(heads_in(b_.whole(from), heads), heads_in(b_.whole(r.source), heads), i);
    }
  }

  void give_keys(int i) {
    for (const int m : peers_) {
      const HeadRange heads = slice_keys(b_, m, i);
      const auto give = [&](std::int32_t slot) {
        b_.transfer(true, rank_of(b_, m), heads_in(b_.whole(slot), heads), i);
      };
      if (staged_) {
        give(packed_);
      } else {
        give(b_.caller(Role::k));
        give(b_.caller(Role::v));
      }
    }
  }

  void take_keys(int i) {
    const HeadRange heads = slice_keys(b_, me_, i);
    for (const int m : peers_) {
      const auto take = [&](const Block& block) {
        b_.transfer(false, rank_of(b_, m),
                    tokens_of(b_, heads_in(block, heads, b_.heads_kv().first), m, true), i);
      };
      if (staged_) {
        take(b_.whole(kv_));
      } else {
        take(keys_part(kv_, Role::k));
        take(keys_part(kv_, Role::v));
      }
    }
  }

  /// Own tokens, own heads, of all slices.
  void copy_own(const std::vector<const Rows*>& rows) {
    for (const Role role : {Role::k, Role::v}) {
      b_.copy(heads_in(b_.whole(b_.caller(role)), b_.heads_kv()),
              tokens_of(b_, keys_part(kv_, role), me_, true), 0);
    }
    for (const Rows* r : rows) {
      b_.copy(heads_in(b_.whole(b_.caller(r->role)), heads()),
              tokens_of(b_, b_.whole(r->target), me_, false), 0);
    }
  }

  Attend attend_on(int i) const {
    Attend a;
    a.head = slice_rows(b_, me_, i).first;
    a.heads = slice_rows(b_, me_, i).count;
    a.q = view(q_.target, heads().first);
    a.k = view(kv_, b_.heads_kv().first);
    a.v = view(kv_, b_.heads_kv().first, b_.dim());
    a.lse = view(lse_, heads().first);
    return a;
  }

  void attend_forward(int i) {
    Attend a = attend_on(i);
    a.out = view(out_, heads().first);
    a.finish = true;
    b_.attend(a, segments_of(b_.group().keys), i, pairs_);
  }

  /// The group's tokens of slice i go to whoever holds them.
  void give_rows(std::int32_t slot, int i) {
    const Block from = heads_in(b_.whole(slot), slice_rows(b_, me_, i), heads().first);
    for (const int m : peers_) {
      b_.transfer(true, rank_of(b_, m), tokens_of(b_, from, m, false), i);
    }
  }

  void take_rows(std::int32_t landing, int i) {
    for (const int m : peers_) {
      b_.transfer(false, rank_of(b_, m), heads_in(b_.whole(landing), slice_rows(b_, m, i)), i);
    }
  }

  /// What came of the last slice is copied last.
  void copy_home(std::int32_t slot, Role role, std::int32_t landing) {
    const std::int32_t to = b_.caller(role);
    b_.copy(tokens_of(b_, b_.whole(slot), me_, false), heads_in(b_.whole(to), heads()), last());
    if (landing == to) return;
    for (const bool at_last : {false, true}) {
      for (const int m : peers_) {
        const HeadRange all = heads_of(b_, m, false);
        const HeadRange late = slice_rows(b_, m, last());
        const HeadRange part = at_last ? late : HeadRange{all.first, all.count - late.count};
        b_.copy(heads_in(b_.whole(landing), part), heads_in(b_.whole(to), part), last());
      }
    }
  }

  /// Statistics of rows go home together, each member's in one piece: as part of a tensor of all
  /// heads they would be rows of a few words for a copy engine.
  std::vector<std::int32_t> make_lse_landing() {
    std::vector<std::int32_t> slots(heads_count_of_all(), b_.caller(Role::lse));
    if (!staged_) return slots;
    for (const int m : peers_) {
      slots[static_cast<std::size_t>(m)] = b_.slot(
          "lse part", DType::f32, b_.tokens(b_.caller(Role::lse)), heads_of(b_, m, false).count, 1);
    }
    return slots;
  }
  std::size_t heads_count_of_all() const { return b_.plan().heads.size(); }

  void give_lse() {
    for (const int m : peers_) {
      b_.transfer(true, rank_of(b_, m), tokens_of(b_, b_.whole(lse_), m, false), last());
    }
  }

  void take_lse(const std::vector<std::int32_t>& slots) {
    for (const int m : peers_) {
      const Block to = b_.whole(slots[static_cast<std::size_t>(m)]);
      b_.transfer(false, rank_of(b_, m), staged_ ? to : heads_in(to, heads_of(b_, m, false)),
                  last());
    }
  }

  void copy_lse_home(const std::vector<std::int32_t>& slots) {
    const Block to = b_.whole(b_.caller(Role::lse));
    b_.copy(tokens_of(b_, b_.whole(lse_), me_, false), heads_in(to, heads()), last());
    if (!staged_) return;
    for (const int m : peers_) {
      b_.copy(b_.whole(slots[static_cast<std::size_t>(m)]), heads_in(to, heads_of(b_, m, false)),
              last());
    }
  }

  RankBuilder& b_;
  bool staged_;
  int me_;
  std::vector<int> peers_;
  std::int64_t pairs_;
  std::int32_t packed_ = -1;  ///< staged: K|V of own tokens, all heads
  std::int32_t kv_ = -1;
  Rows q_{};
  std::int32_t out_ = -1;
  std::int32_t lse_ = -1;
};

}  // namespace

void sliced_forward(RankBuilder& b) { Slices(b).forward(); }

}  // namespace annulus::attn
