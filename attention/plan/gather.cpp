// Key/value heads are pulled from their owners, slice by slice (Llama 3, Dubey et al. 2024, section
// 3.3.2): slice i + 1 moves while slice i computes, two are held. A slice lands in global position
// order and holds only the keys that some row of the receiver sees. Backward: each slice's dK/dV go
// back to their owners, who add them in a fixed order: their own, then from the next neighbour on.

#include "attention/plan/stages.h"

#include <algorithm>

namespace annulus::attn {
namespace {

constexpr int kDefaultSlices = 4;
/// Contributions an owner may hold at once: those of a round.
constexpr int kReceiveSlots = 4;

/// Tokens that move together: `source` tokens of an owner's slot, one after the other, to every
/// `step`-th token of the receiver's buffer.
struct Run {
  std::int64_t source = 0;
  std::int64_t target = 0;
  std::int64_t count = 0;
  std::int64_t step = 1;
};

/// The part of an owner's keys that a receiver needs. Both ends derive it, in the same order.
std::vector<Run> runs_between(const std::vector<TokenRange>& owned,
                              const std::vector<KeyInterval>& needed) {
  std::vector<Run> runs;
  std::int64_t source = 0;
  for (const TokenRange& range : owned) {
    std::int64_t target = 0;
    for (const KeyInterval& want : needed) {
      const std::int64_t s = range.stride;
      const std::int64_t first =
          want.begin <= range.begin ? 0 : (want.begin - range.begin + s - 1) / s;
      const std::int64_t last =
          want.end <= range.begin ? 0 : std::min(range.count, (want.end - range.begin + s - 1) / s);
      if (first < last) {
        runs.push_back(
            {source + first, target + range.position(first) - want.begin, last - first, s});
      }
      target += want.end - want.begin;
    }
    source += range.count;
  }
  return runs;
}

/// One rank's part in the exchange.
class Exchange {
 public:
  Exchange(RankBuilder& b, const GroupTensors& t) : b_(b), t_(t) {
    const std::int32_t wish = b.plan().request.options.gather_slices;
    const std::int32_t heads = b.heads_kv().count;
    const std::int32_t slices = std::clamp(wish > 0 ? wish : kDefaultSlices, 1, std::max(1, heads));
    for (std::int32_t i = 0; i < slices; ++i) {
      const std::int32_t begin = heads * i / slices;
      slices_.push_back({begin, heads * (i + 1) / slices - begin});
      widest_ = std::max(widest_, slices_.back().count);
    }
    const int me = b.ring_index();
    for (int g = 0; g < groups(); ++g) {
      given_.push_back(runs_between(owned(me), needed(g)));
      taken_.push_back(runs_between(owned(g), needed(me)));
    }
    for (const KeyInterval& k : needed(me)) {
      keys_.push_back({k.begin, k.end - k.begin, 1});
      tokens_ += k.end - k.begin;
    }
  }

  int slices() const { return static_cast<int>(slices_.size()); }
  /// Heads of slice i, counted from the rank's first key/value head.
  HeadRange slice(int i) const { return slices_[static_cast<std::size_t>(i)]; }
  std::vector<Segment> segments() const { return segments_of(keys_); }
  int groups() const { return b_.plan().request.mesh.ring; }

  std::int32_t buffer(std::string_view name, DType dtype, std::int64_t tokens) {
    return b_.slot(name, dtype, tokens, widest_, b_.dim() + b_.dim_v());
  }
  std::int64_t tokens() const { return tokens_; }

  /// Own keys that a group needs, and a group's keys that this rank needs.
  const std::vector<Run>& given(int group) const { return given_[static_cast<std::size_t>(group)]; }
  const std::vector<Run>& taken(int group) const { return taken_[static_cast<std::size_t>(group)]; }
  int rank_of(int group) const { return b_.plan().rank_at(group, b_.ulysses_index()); }

  /// Block of a slice buffer.
  Block part(std::int32_t buffer, int i, const Run& run) const {
    return with_heads(with_tokens(b_.whole(buffer), run.target, run.count, run.step), 0,
                      slice(i).count);
  }
  /// Block of a slot that holds all own keys and all key/value heads.
  Block own(std::int32_t slot, int i, const Run& run) const {
    return with_heads(with_tokens(b_.whole(slot), run.source, run.count), slice(i).first,
                      slice(i).count);
  }

  /// Keys of slice i come into `buffer`; own ones are given to whoever needs them.
  void pull(std::int32_t buffer, int i) {
    const int me = b_.ring_index();
    b_.next_round();
    for (const Run& run : given(me)) {
      b_.copy(own(t_.packed_kv, i, run), part(buffer, i, run), i);
    }
    for (int d = 1; d < groups(); ++d) {
      const int from = (me + d) % groups();
      const int to = (me + groups() - d) % groups();
      for (const Run& run : given(to)) {
        b_.transfer(true, rank_of(to), own(t_.packed_kv, i, run), i);
      }
      for (const Run& run : taken(from)) {
        b_.transfer(false, rank_of(from), part(buffer, i, run), i);
      }
    }
  }

  /// Query heads that read slice i: the rank's own ones among the slice's groups.
  HeadRange query_heads(int i) const {
    const std::int32_t group = b_.plan().group_size();
    const std::int32_t kv = b_.heads_kv().first + slice(i).first;
    const std::int32_t begin = std::max(b_.heads().first, kv * group);
    const std::int32_t end = std::min(b_.heads().end(), (kv + slice(i).count) * group);
    return {begin, std::max(0, end - begin)};
  }

  /// An attend task over slice i in `buffer`, operands of the pass still to be filled.
  Attend attend(std::int32_t buffer, int i) const {
    Attend a;
    a.head = query_heads(i).first;
    a.heads = query_heads(i).count;
    a.q = t_.q;
    a.lse = t_.lse;
    a.k = view(buffer, b_.heads_kv().first + slice(i).first);
    a.v = view(buffer, b_.heads_kv().first + slice(i).first, b_.dim());
    return a;
  }

 private:
  const std::vector<KeyInterval>& needed(int group) const {
    return b_.plan().needed[static_cast<std::size_t>(group)];
  }
  const std::vector<TokenRange>& owned(int group) const {
    return b_.plan().groups[static_cast<std::size_t>(group)].keys;
  }

  RankBuilder& b_;
  const GroupTensors& t_;
  std::vector<std::vector<Run>> given_;
  std::vector<std::vector<Run>> taken_;
  std::vector<HeadRange> slices_;
  std::int32_t widest_ = 0;
  std::vector<TokenRange> keys_;
  std::int64_t tokens_ = 0;
};

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
      fn(run, x_.part(receive_[static_cast<std::size_t>(slot)], i, {0, token, run.count, 1}));
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

void gather_forward(RankBuilder& b, const GroupTensors& t) {
  Exchange x(b, t);
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
  Exchange x(b, t);
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
