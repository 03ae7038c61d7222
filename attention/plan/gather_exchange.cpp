#include "attention/plan/gather_exchange.h"

#include "attention/plan/gather_slices.h"

#include <algorithm>

namespace annulus::attn {
namespace {

constexpr int kDefaultSlices = 4;
/// One launch takes what has arrived: slices are fine, as long as a copy is worth its start (3.5
/// us, docs/notes/05-gpu-measurements.md, of 370 GB/s).
constexpr std::int64_t kCopyBytes = std::int64_t{4} << 20;
/// Of the slice that forward waits for before anything hides a copy: earlier is worth more starts.
constexpr std::int64_t kFirstCopyBytes = std::int64_t{2} << 20;

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
        runs.push_back({source + first,
                        target + range.position(first) - want.begin,
                        last - first,
                        s,
                        {range.position(first), last - first, s}});
      }
      target += want.end - want.begin;
    }
    source += range.count;
  }
  return runs;
}

/// Runs that follow each other at their owner are one: they lie together as they arrive.
std::vector<Run> joined(const std::vector<Run>& runs) {
  std::vector<Run> all;
  for (const Run& run : runs) {
    if (!all.empty() && all.back().source + all.back().count == run.source) {
      all.back().count += run.count;
    } else {
      all.push_back(run);
    }
  }
  return all;
}

}  // namespace

Exchange::Exchange(RankBuilder& b, const GroupTensors& t, GatherLaunch launch)
    : b_(b),
      t_(t),
      whole_(launch != GatherLaunch::slices),
      arrival_(launch == GatherLaunch::on_arrival) {
  cut_heads();
  const int me = b.ring_index();
  for (int g = 0; g < groups(); ++g) {
    given_.push_back(runs_between(owned(me), needed(g)));
    taken_.push_back(runs_between(owned(g), needed(me)));
  }
  for (const KeyInterval& k : needed(me)) {
    keys_.push_back({k.begin, k.end - k.begin, 1});
    tokens_ += k.end - k.begin;
  }
  if (arrival_) place_by_arrival();
  for (int g = 0; g < groups(); ++g) {
    sent_.push_back(arrival_ ? joined(given(g)) : given(g));
    received_.push_back(arrival_ ? joined(taken(g)) : taken(g));
  }
}

bool gathers_in_place(const PlanRequest& request) {
  return request.mesh.ulysses == 1 && request.options.gather_launch == GatherLaunch::on_arrival;
}

bool pushes_keys(const PlanRequest& request) {
  return request.options.push_keys && gathers_in_place(request) && request.mesh.ring > 1;
}

std::int64_t tokens_in_place(const Plan::Impl& plan, int group) {
  const auto index = static_cast<std::size_t>(group);
  std::int64_t tokens = plan.groups[index].seq_kv;
  for (std::size_t g = 0; g < plan.groups.size(); ++g) {
    if (g == index) continue;
    for (const Run& run : runs_between(plan.groups[g].keys, plan.needed[index])) {
      tokens += run.count;
    }
  }
  return tokens;
}

/// Slices, if nobody says otherwise. The same on all ranks that exchange.
std::int32_t Exchange::wish() const {
  const std::int32_t asked = b_.plan().request.options.gather_slices;
  if (asked > 0 || !whole_) return asked > 0 ? asked : kDefaultSlices;
  const Problem& p = b_.problem();
  const std::int64_t shard = p.batch * *p.seq_kv / groups() * b_.heads_kv().count *
                             (b_.dim() + b_.dim_v()) * size_of(p.dtype);
  const bool grows = b_.plan().request.pass == Pass::forward;
  const std::int64_t bytes = grows ? kFirstCopyBytes : kCopyBytes;
  return static_cast<std::int32_t>(std::clamp<std::int64_t>(shard / bytes, 1, 1024));
}

void Exchange::cut_heads() {
  const PlanRequest& request = b_.plan().request;
  const std::int32_t heads = b_.heads_kv().count;
  const std::int32_t count = std::clamp(wish(), 1, std::max(1, heads));
  // Each copy costs the host its start, in a graph's replay too. Backward's slices also leave: the
  // last ones, which nothing hides, would be large.
  const bool grow = whole_ && request.options.gather_slices == 0 && request.pass == Pass::forward;
  slices_ = grow ? growing_slices(heads, (heads + count - 1) / count, rows_of_a_key())
                 : equal_slices(heads, count);
  for (const HeadRange& slice : slices_) {
    widest_ = std::max(widest_, whole_ ? heads : slice.count);
  }
}

/// Query rows of a key/value head's group that see a key, on average over ranks and keys.
std::int64_t Exchange::rows_of_a_key() const {
  const Problem& p = b_.problem();
  const std::int64_t ranks = std::max<std::int64_t>(1, *p.seq_kv) * groups();
  return count_pairs(b_.plan().bands, 0, p.seq) * b_.plan().group_size() / ranks;
}

/// All own keys lie first, where they were packed; runs follow as pull() asks for them.
void Exchange::place_by_arrival() {
  keys_ = b_.group().keys;
  tokens_ = b_.group().seq_kv;
  for (Run& run : taken_[static_cast<std::size_t>(b_.ring_index())]) {
    run.target = run.source;
    run.step = 1;
  }
  for (int d = 1; d < groups(); ++d) {
    for (Run& run : taken_[static_cast<std::size_t>(group_at(d))]) {
      run.target = tokens_;
      run.step = 1;
      tokens_ += run.count;
      keys_.push_back(run.positions);
    }
  }
}

Exchange::Gathered Exchange::gather_all() {
  if (pushes_keys(b_.plan().request)) return push_all();
  const std::int32_t kv = gathers_in_place(b_.plan().request)
                              ? t_.packed_kv
                              : buffer("kv", b_.problem().dtype, tokens_);
  for (int i = 0; i < slices(); ++i) pull(kv, i);
  return {kv, kv};
}

/// Own keys first, which no transfer waits for.
Exchange::Gathered Exchange::push_all() {
  const DType dtype = b_.problem().dtype;
  const Gathered to{b_.slot("keys", dtype, tokens_, all().count, b_.dim()),
                    b_.slot("values", dtype, tokens_, all().count, b_.dim_v())};
  const std::int64_t own = b_.group().seq_kv;
  b_.copy(b_.whole(t_.k.slot), with_tokens(b_.whole(to.k), 0, own), 0);
  b_.copy(b_.whole(t_.v.slot), with_tokens(b_.whole(to.v), 0, own), 0);
  for (int i = 0; i < slices(); ++i) push(to, i);
  return to;
}

void Exchange::push(const Gathered& to, int i) {
  b_.next_round();
  const HeadRange heads = slice(i);
  const auto part = [&](std::int32_t slot, std::int64_t token, const Run& run, std::int64_t step) {
    return with_heads(with_tokens(b_.whole(slot), token, run.count, step), heads.first,
                      heads.count);
  };
  for (int d = 1; d < groups(); ++d) {
    const int receiver = group_at(-d);
    const int sender = group_at(d);
    for (const Run& run : sent(receiver)) {
      for (const std::int32_t slot : {t_.k.slot, t_.v.slot}) {
        b_.push(true, rank_of(receiver), part(slot, run.source, run, 1), i);
      }
    }
    for (const Run& run : received(sender)) {
      for (const std::int32_t slot : {to.k, to.v}) {
        b_.push(false, rank_of(sender), part(slot, run.target, run, run.step), i);
      }
    }
  }
}

Block Exchange::part_of(std::int32_t buffer, HeadRange heads, const Run& run) const {
  return with_heads(with_tokens(b_.whole(buffer), run.target, run.count, run.step),
                    whole_ ? heads.first : 0, heads.count);
}

Block Exchange::own_of(std::int32_t slot, HeadRange heads, const Run& run) const {
  return with_heads(with_tokens(b_.whole(slot), run.source, run.count), heads.first, heads.count);
}

void Exchange::copy_own(std::int32_t buffer, HeadRange heads, int step) {
  if (buffer == t_.packed_kv) return;
  if (arrival_) {
    const std::int64_t tokens = b_.group().seq_kv;
    b_.copy(with_tokens(b_.whole(t_.packed_kv), 0, tokens),
            with_tokens(b_.whole(buffer), 0, tokens), step);
    return;
  }
  for (const Run& run : taken(b_.ring_index())) {
    b_.copy(own_of(t_.packed_kv, heads, run), part_of(buffer, heads, run), step);
  }
}

void Exchange::pull(std::int32_t buffer, int i) {
  b_.next_round();
  if (!whole_) copy_own(buffer, slice(i), i);
  if (whole_ && i == 0) copy_own(buffer, all(), i);
  for (int d = 1; d < groups(); ++d) {
    const int from = group_at(d);
    const int to = group_at(-d);
    for (const Run& run : sent(to)) {
      b_.transfer(true, rank_of(to), own(t_.packed_kv, i, run), i);
    }
    for (const Run& run : received(from)) {
      b_.transfer(false, rank_of(from), part(buffer, i, run), i);
    }
  }
}

/// Query heads that read slice i: the rank's own ones among the slice's groups.
HeadRange Exchange::query_heads(int i) const {
  const std::int32_t group = b_.plan().group_size();
  const std::int32_t kv = b_.heads_kv().first + slice(i).first;
  const std::int32_t begin = std::max(b_.heads().first, kv * group);
  const std::int32_t end = std::min(b_.heads().end(), (kv + slice(i).count) * group);
  return {begin, std::max(0, end - begin)};
}

Attend Exchange::attend(const Gathered& from, HeadRange heads, std::int32_t first_kv) const {
  Attend a;
  a.head = heads.first;
  a.heads = heads.count;
  a.q = t_.q;
  a.lse = t_.lse;
  a.k = view(from.k, first_kv);
  a.v = view(from.v, first_kv, from.v == from.k ? b_.dim() : 0);
  return a;
}

Attend Exchange::attend(std::int32_t buffer, int i) const {
  return attend({buffer, buffer}, query_heads(i), b_.heads_kv().first + slice(i).first);
}

Attend Exchange::attend(const Gathered& from) const {
  return attend(from, b_.heads(), b_.heads_kv().first);
}

}  // namespace annulus::attn
