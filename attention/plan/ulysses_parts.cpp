#include "attention/plan/ulysses_parts.h"

#include <algorithm>

namespace annulus::attn {

std::vector<int> peers(const RankBuilder& b) {
  const int n = b.plan().request.mesh.ulysses;
  std::vector<int> order;
  for (int i = 1; i < n; ++i) order.push_back((b.ulysses_index() + i) % n);
  return order;
}

int rank_of(const RankBuilder& b, int member) { return b.plan().rank_at(b.ring_index(), member); }

HeadRange heads_of(const RankBuilder& b, int member, bool keys) {
  return (keys ? b.plan().heads_kv : b.plan().heads)[static_cast<std::size_t>(member)];
}

HeadRange heads_of_others(const RankBuilder& b, bool keys) {
  HeadRange all;
  for (const int m : peers(b)) {
    const HeadRange theirs = heads_of(b, m, keys);
    if (theirs.count == 0) continue;
    const std::int32_t first = all.count == 0 ? theirs.first : std::min(all.first, theirs.first);
    all = {first, std::max(all.end(), theirs.end()) - first};
  }
  return all;
}

Block tokens_of(const RankBuilder& b, const Block& block, int member, bool keys) {
  const auto& begin = keys ? b.group().key_begin : b.group().row_begin;
  const auto m = static_cast<std::size_t>(member);
  return with_tokens(block, begin[m], begin[m + 1] - begin[m]);
}

int slices_of(const RankBuilder& b) { return static_cast<int>(b.plan().slice_ends.size()); }

HeadRange slice_rows(const RankBuilder& b, int member, int i) {
  const std::vector<std::int32_t>& ends = b.plan().slice_ends;
  const HeadRange all = heads_of(b, member, false);
  const auto end = std::min(all.count, ends[static_cast<std::size_t>(i)]);
  const auto begin = i == 0 ? 0 : std::min(all.count, ends[static_cast<std::size_t>(i) - 1]);
  return {all.first + begin, end - begin};
}

HeadRange slice_keys(const RankBuilder& b, int member, int i) {
  const HeadRange rows = slice_rows(b, member, i);
  const HeadRange all = heads_of(b, member, true);
  const std::int32_t group = b.plan().group_size();
  const auto read = [&](std::int32_t end) {  // by the member's query heads before `end`
    return end > heads_of(b, member, false).first ? (end - 1) / group + 1 : all.first;
  };
  const std::int32_t begin = read(rows.first);
  return {begin, read(rows.end()) - begin};
}

SliceCase slice_case(const Plan::Impl& plan) {
  const Problem& p = plan.problem();
  const bool forward = plan.request.pass == Pass::forward;
  const std::int64_t size = size_of(p.dtype);
  const std::int64_t widths = p.head_dim + *p.head_dim_v;
  const Group& group = plan.groups.front();
  SliceCase c;
  c.members = plan.request.mesh.ulysses;
  for (const HeadRange& h : plan.heads) c.heads = std::max(c.heads, h.count);
  c.group = plan.group_size();
  // A key/value head's gradient is summed over its query heads by one launch: the same bits.
  c.unit = forward ? 1 : c.group;
  c.batch = p.batch;
  c.rows = group.seq;
  c.keys = group.seq_kv;
  if (plan.request.options.ulysses_slices == 0) {
    c.pairs = RowTable(plan.bands, group.rows).pairs({0, *p.seq_kv, 1});
  }
  c.flops_a_pair = forward ? 2 * widths : 2 * (3 * p.head_dim + 2 * *p.head_dim_v);
  // What `hopper` does of long sequences (docs/performance.md).
  c.tflops = forward ? 640 : 420;
  c.row_in = (forward ? p.head_dim : widths) * size;
  c.key_in = widths * size;
  c.row_out = (forward ? *p.head_dim_v : p.head_dim) * size;
  c.key_out = forward ? 0 : widths * size;
  c.gives_in_place = plan.request.options.give_in_place;
  c.lands_in_place = plan.request.options.land_in_place;
  return c;
}

}  // namespace annulus::attn
