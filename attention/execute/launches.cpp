#include "attention/execute/launches.h"

#include "attention/execute/arrivals.h"
#include "attention/execute/joined_tiles.h"
#include "attention/plan/context.h"

#include <algorithm>
#include <utility>

namespace annulus::attn {
namespace {

template <typename Pointer>
Operand<Pointer> operand(const Memory& memory, const SlotView& view, std::int32_t head) {
  if (view.slot < 0) return {};
  const SlotMemory& m = memory.slot(view.slot);
  const Block first{view.slot, 0, 1, 1, head - view.head_origin, 1, view.dim, 1};
  return {memory.at(first), m.dtype, m.batch_stride, m.token_stride, m.head_stride};
}

Launch segments_of(const RankPlan& rank, const Attend& a) {
  Launch launch;
  for (std::int32_t i = 0; i < a.queries.count; ++i) {
    const Segment& s = rank.segments[static_cast<std::size_t>(a.queries.begin + i)];
    if (i == 0) launch.first_row = s.first_row;
    launch.queries.push_back({s.first_row - launch.first_row, s.token, s.positions.count});
  }
  for (std::int32_t i = 0; i < a.keys.count; ++i) {
    const Segment& s = rank.segments[static_cast<std::size_t>(a.keys.begin + i)];
    const TokenRange& p = s.positions;
    launch.keys.push_back({s.token, p.begin, p.stride, p.count});
  }
  return launch;
}

std::int64_t rows_of(const Launch& launch) {
  std::int64_t rows = 0;
  for (const QuerySegment& s : launch.queries) rows += s.count;
  return rows;
}

/// Rows [first, first + count) of those that follow each other in `ranges`.
std::vector<TokenRange> part_of(const std::vector<TokenRange>& ranges, std::int64_t first,
                                std::int64_t count) {
  std::vector<TokenRange> part;
  for (const TokenRange& range : ranges) {
    const std::int64_t begin = std::max<std::int64_t>(first, 0);
    const std::int64_t end = std::min(first + count, range.count);
    if (begin < end) part.push_back({range.position(begin), end - begin, range.stride});
    first -= range.count;
  }
  return part;
}

/// What is known of the rows of attends. Most attends of a plan have the same ones.
class Tables {
 public:
  Tables(const Plan& plan, const RankPlan& rank) : bands_(plan.impl().bands), rank_(rank) {}

  const RowTable& of(const Launch& launch) {
    const std::int64_t rows = rows_of(launch);
    for (const Known& known : known_) {
      if (known.first == launch.first_row && known.table.rows() == rows) return known.table;
    }
    known_.push_back(
        {launch.first_row, RowTable(bands_, part_of(rank_.rows, launch.first_row, rows))});
    return known_.back().table;
  }

 private:
  struct Known {
    std::int64_t first;
    RowTable table;
  };
  const std::vector<Band>& bands_;
  const RankPlan& rank_;
  std::vector<Known> known_;
};

AttendGeometry geometry_of(const Problem& p, const Attend& a, const Launch& launch) {
  AttendGeometry g;
  g.batch = p.batch;
  g.heads = a.heads;
  g.group = p.heads / *p.heads_kv;
  // Operands start at the key/value head of the first query head.
  g.head_offset = a.head % g.group;
  g.head_dim = p.head_dim;
  g.head_dim_v = *p.head_dim_v;
  g.softmax_scale = *p.softmax_scale;
  g.softcap = p.softcap;
  g.sequence_keys = *p.seq_kv;
  g.sequence_rows = p.seq;
  g.all_heads = p.heads * p.batch;
  g.rows = rows_of(launch);
  g.queries = launch.queries;
  g.keys = launch.keys;
  g.tiles = launch.tiles;
  g.row_tiles = launch.index.row_tiles;
  g.tiles_by_key = launch.index.tiles_by_key;
  g.key_tiles = launch.index.key_tiles;
  g.places = launch.index.places;
  g.covered_rows = launch.index.covered_rows;
  g.key_tokens = tokens_of(std::span<const KeySegment>(launch.keys));
  g.query_tokens = tokens_of(std::span<const QuerySegment>(launch.queries));
  return g;
}

std::vector<TokenRange> positions_of(const RankPlan& rank, Slice segments) {
  std::vector<TokenRange> positions;
  for (std::int32_t i = 0; i < segments.count; ++i) {
    positions.push_back(rank.segments[static_cast<std::size_t>(segments.begin + i)].positions);
  }
  return positions;
}

bool same_segments(const RankPlan& rank, Slice a, Slice b) {
  const auto first = [&](Slice s) { return rank.segments.begin() + s.begin; };
  return std::equal(first(a), first(a) + a.count, first(b), first(b) + b.count,
                    [](const Segment& x, const Segment& y) {
                      return x.token == y.token && x.positions == y.positions &&
                             x.first_row == y.first_row;
                    });
}

/// Segments and tiles depend on rows and keys, not on heads.
bool same_lists(const RankPlan& rank, const Attend& a, const Attend& b) {
  return !a.on_arrival && !b.on_arrival && same_segments(rank, a.queries, b.queries) &&
         same_segments(rank, a.keys, b.keys);
}

/// An index as large as that of the attend's tiles, or larger, with nothing in it: it is asked how
/// large it is alone.
void count_tiles(const RowTable& table, const TileGrid& grid, const RankPlan& rank, const Attend& a,
                 Launch& launch) {
  std::int64_t keys = 0;
  for (std::int32_t i = 0; i < a.keys.count; ++i) {
    const Segment& s = rank.segments[static_cast<std::size_t>(a.keys.begin + i)];
    keys += table.most_key_tiles(grid, s.positions);
  }
  launch.index.row_tiles.resize(static_cast<std::size_t>(table.most_query_tiles(grid.tile_q)) + 1);
  launch.index.key_tiles.resize(static_cast<std::size_t>(keys) + 1);
}

void add_arrivals(const RankPlan& rank, const Item& item, const Problem& p, Launch& launch) {
  const std::vector<std::int32_t> arrivals = arrivals_of(rank, item);
  if (arrivals.empty()) return;
  const Attend& a = rank.attends[static_cast<std::size_t>(item.payload)];
  const auto group = static_cast<std::int32_t>(p.heads / *p.heads_kv);
  const std::int32_t first = a.head / group;
  const std::int32_t heads = (a.head + a.heads - 1) / group + 1 - first;
  launch.needed = arrivals_needed(rank, a, first, heads, arrivals);
  launch.arrivals = static_cast<std::uint32_t>(arrivals.size());
}

}  // namespace

KernelQuery kernel_query(const Problem& p, Pass pass, std::string_view backend) {
  return {.dtype = p.dtype,
          .head_dim = p.head_dim,
          .head_dim_v = *p.head_dim_v,
          .backward = pass == Pass::backward,
          .backend = backend,
          .softcap = p.softcap != 0.0,
          .keys = *p.seq_kv,
          .softmax_scale = *p.softmax_scale};
}

std::int64_t workspace_bytes(const Plan& plan, const RankPlan& rank, const Kernel& kernel,
                             int threads) {
  if (kernel.backend != "cpu" && !kernel.joined_tiles) {
    return workspace_bytes(Launches(plan, rank, kernel), threads);
  }
  Tables tables(plan, rank);
  const TileGrid grid{plan.request().options.tile_q, plan.request().options.tile_k};
  std::int64_t bytes = 0;
  for (const Attend& a : rank.attends) {
    Launch launch = segments_of(rank, a);
    if (kernel.joined_tiles) count_tiles(tables.of(launch), grid, rank, a, launch);
    const AttendGeometry g = geometry_of(plan.request().problem, a, launch);
    bytes = std::max(bytes, kernel.workspace_bytes(g, a.pass == Pass::backward, threads));
  }
  return bytes;
}

std::int64_t workspace_bytes(const Launches& launches, int threads) {
  std::int64_t bytes = 0;
  const std::vector<Attend>& attends = launches.rank().attends;
  for (std::size_t i = 0; i < attends.size(); ++i) {
    const AttendGeometry g = launches.geometry(static_cast<std::int32_t>(i));
    const bool backward = attends[i].pass == Pass::backward;
    bytes = std::max(bytes, launches.kernel().workspace_bytes(g, backward, threads));
  }
  return bytes;
}

Launches::Launches(const Plan& plan, const RankPlan& rank, const Kernel& kernel, bool deterministic)
    : rank_(rank),
      kernel_(kernel),
      problem_(plan.request().problem),
      deterministic_(deterministic) {
  Tables tables(plan, rank);
  const TileGrid grid{plan.request().options.tile_q, plan.request().options.tile_k};
  intervals_ = RowTable(plan.impl().bands, rank.rows).intervals();
  for (const Item& item : rank.items) {
    if (item.kind != ItemKind::attend) continue;
    const Attend& a = rank.attends[static_cast<std::size_t>(item.payload)];
    if (!list_of_.empty() && same_lists(rank, a, rank.attends[list_of_.size() - 1])) {
      list_of_.push_back(list_of_.back());
      continue;
    }
    list_of_.push_back(static_cast<std::int32_t>(launches_.size()));
    Launch launch = segments_of(rank, a);
    const RowTable& rows = tables.of(launch);
    if (kernel.backend != "cpu") add_arrivals(rank, item, problem_, launch);
    const bool joins = kernel.joined_tiles && !(deterministic && a.pass == Pass::backward);
    const TileLimits limits = tiles_for(kernel, kernel_query(problem_, a.pass, kernel.backend));
    if (joins && !rows.cut_to_keys()) {
      JoinedTiles joined = joined_tiles(rows, grid, positions_of(rank, a.keys), limits);
      launch.tiles = std::move(joined.tiles);
      launch.index = std::move(joined.index);
      launches_.push_back(std::move(launch));
      continue;
    }
    for (std::int32_t i = 0; i < a.keys.count; ++i) {
      const Segment& s = rank.segments[static_cast<std::size_t>(a.keys.begin + i)];
      rows.tiles(grid, i, s.positions, launch.tiles);
    }
    // A query tile meets all its segments before the next one starts.
    std::stable_sort(launch.tiles.begin(), launch.tiles.end(),
                     [](const Tile& x, const Tile& y) { return x.row < y.row; });
    if (kernel.backend != "cpu") {
      if (rows.cut_to_keys()) launch.tiles = disjoint_key_tiles(launch.tiles);
      launch.index = make_tile_index(launch.tiles, limits);
    }
    if (joins) {
      JoinedTiles joined = join_tiles(launch.tiles, launch.index);
      launch.tiles = std::move(joined.tiles);
      launch.index = std::move(joined.index);
    }
    launches_.push_back(std::move(launch));
  }
}

AttendGeometry Launches::geometry(std::int32_t index) const {
  const auto i = static_cast<std::size_t>(index);
  const Launch& l = launch(index);
  AttendGeometry g = geometry_of(problem_, rank_.attends[i], l);
  if (!deterministic_) g.sequence_rows = 0;  // nobody asks, so no workspace either
  g.intervals =
      std::span(intervals_)
          .subspan(static_cast<std::size_t>(l.first_row), static_cast<std::size_t>(g.rows));
  return g;
}

void Launches::run(std::int32_t index, const Memory& memory, const LaunchContext& context) const {
  run_attend(kernel_, rank_.attends[static_cast<std::size_t>(index)], geometry(index), memory,
             context);
}

void run_attend(const Kernel& kernel, const Attend& a, const AttendGeometry& g,
                const Memory& memory, const LaunchContext& context, std::uint32_t* done) {
  const auto kv_head = static_cast<std::int32_t>(a.head / g.group);
  const Input q = operand<const void*>(memory, a.q, a.head);
  const Input k = operand<const void*>(memory, a.k, kv_head);
  const Input v = operand<const void*>(memory, a.v, kv_head);
  if (a.pass == Pass::forward) {
    ForwardParams p{g,
                    q,
                    k,
                    v,
                    operand<void*>(memory, a.out, a.head),
                    operand<void*>(memory, a.lse, a.head),
                    operand<void*>(memory, a.state, a.head),
                    a.resume,
                    a.finish};
    kernel.forward(p, context);
    return;
  }
  BackwardParams p{g,
                   q,
                   k,
                   v,
                   operand<const void*>(memory, a.dout, a.head),
                   operand<const void*>(memory, a.lse, a.head),
                   operand<const void*>(memory, a.delta, a.head),
                   operand<void*>(memory, a.dq, a.head),
                   operand<void*>(memory, a.dk, kv_head),
                   operand<void*>(memory, a.dv, kv_head),
                   a.dq_assign,
                   a.dkv_assign,
                   done};
  kernel.backward(p, context);
}

}  // namespace annulus::attn
