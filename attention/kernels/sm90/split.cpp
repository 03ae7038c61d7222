#include "attention/kernels/sm90/split.h"

#include "attention/kernels/sm90/setup.h"
#include "attention/kernels/sm90/tuning.h"

#include <algorithm>

namespace annulus::attn::sm90 {

namespace {

constexpr int kMostParts = 64;
constexpr int kMostSms = 144;  ///< of any device of this architecture
/// Items, parts included, that multiprocessors have on average at most.
constexpr int kMostItemsOfSm = 2;
// In steps: what an item costs beside its steps, and what the merge costs, which is a launch and
// two passes over the states.
constexpr std::int64_t kItemSteps = 3;
constexpr std::int64_t kMergeSteps = 4;
constexpr std::int64_t kPackedRows = 128;  ///< of a query tile, at most; tiles of any tuning do
constexpr std::int64_t kAlignment = 64;
// Of parts that must not depend on a rank. The device is one for all; as many parts as keep it busy
// with few heads, and leave parts of many keys long.
constexpr int kNominalSms = 132;
constexpr std::int64_t kSequenceParts = 32;
constexpr std::int64_t kMostStateBytes = std::int64_t{72} << 20;  ///< of the whole sequence

std::int64_t ceil_of(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Steps of the longest query tile, or more: the host sees neither mask nor segments.
std::int64_t most_steps(const AttendGeometry& g, int step_keys) {
  const std::int64_t tokens = all_key_tokens(g);
  const std::int64_t keys = g.sequence_keys > 0 ? std::min(tokens, g.sequence_keys) : tokens;
  return ceil_of(keys, step_keys);
}

std::int64_t row_tiles_of(const AttendGeometry& g) {
  return g.row_tiles.empty() ? 0 : static_cast<std::int64_t>(g.row_tiles.size()) - 1;
}

/// Query heads that may be packed: whole groups, whose rows fit a query tile.
std::int64_t packable(const AttendGeometry& g) {
  const bool whole = g.head_offset % g.group == 0 && g.heads % g.group == 0;
  return whole && g.rows * g.group <= kPackedRows ? g.group : 1;
}

/// Rows of a query tile, at most.
std::int64_t tile_rows(const AttendGeometry& g, std::int64_t group) {
  return std::min<std::int64_t>(g.rows * group, kMostTileRows);
}

/// Bytes at which the parts of a workspace begin.
struct Places {
  std::int64_t split_tiles, lse, state, q, key_tiles, intervals;
  std::int64_t end = 0;

  /// `items`, `rows_of_head`: of all parts of a head.
  Places(const AttendGeometry& g, std::int64_t group, std::int64_t row_tiles, std::int64_t items,
         std::int64_t rows_of_head, std::int64_t tiles) {
    const std::int64_t rows = rows_of_head * (g.heads / group * g.batch);
    const std::int64_t packed = group > 1 ? 1 : 0;
    take(schedule_bytes(items));
    split_tiles = take(row_tiles * static_cast<std::int64_t>(sizeof(SplitTile)));
    lse = take(rows * 4);
    state = take(rows * g.head_dim_v * 4);
    q = take(packed * g.batch * g.heads * g.rows * g.head_dim * 2);
    key_tiles = take(packed * tiles * static_cast<std::int64_t>(sizeof(Tile)));
    intervals = take(packed * g.rows * group * 2 * static_cast<std::int64_t>(sizeof(KeyInterval)));
  }

 private:
  std::int64_t take(std::int64_t bytes) {
    const std::int64_t begin = end;
    end += ceil_of(bytes, kAlignment) * kAlignment;
    return begin;
  }
};

Places places_of(const AttendGeometry& g, const Split& split) {
  const std::int64_t row_tiles = row_tiles_of(g);
  return {g,
          split.group,
          row_tiles,
          row_tiles * split.parts,
          g.rows * split.group * split.parts,
          static_cast<std::int64_t>(g.tiles.size())};
}

int most_parts(std::int64_t items, std::int64_t steps, int sms) {
  if (items == 0) return 1;
  const std::int64_t most = std::min<std::int64_t>(
      {kMostParts, steps / kLeastSteps, std::int64_t{kMostItemsOfSm} * sms / items});
  return static_cast<int>(std::max<std::int64_t>(1, most));
}

/// How long the longest of the blocks is at work, in steps.
std::int64_t cost_of(std::int64_t items, std::int64_t steps, int sms, const Split& split) {
  return ceil_of(items / split.group * split.parts, sms) *
             (ceil_of(steps, split.parts) + kItemSteps) +
         (split.merged() ? kMergeSteps : 0);
}

/// Query tiles of a launch or more, where they may not be known yet.
std::int64_t most_row_tiles(const AttendGeometry& g) {
  if (!g.row_tiles.empty()) return row_tiles_of(g);
  const auto tiles = static_cast<std::int64_t>(g.tiles.size());
  return tiles > 0 ? std::min(g.rows, tiles) : g.rows;
}

/// Joined lists are as short as this, but for unusual masks: then heads are not packed.
std::int64_t listed(const AttendGeometry& g) {
  return 4 * static_cast<std::int64_t>(g.keys.size()) + 64;
}

std::int64_t fixed_bytes(const AttendGeometry& g, const Split& of_sequence, std::int64_t group) {
  const std::int64_t tiles = most_row_tiles(g);
  return Places(g, group, tiles, tiles * of_sequence.parts, g.rows * group * of_sequence.parts,
                listed(g))
      .end;
}

/// What launches want of which no more is known than this. More query tiles have fewer parts.
std::int64_t most_bytes(const AttendGeometry& g, std::int64_t steps, std::int32_t group) {
  const std::int64_t heads = g.heads / group * g.batch;
  const std::int64_t fewest = heads * ceil_of(g.rows * group, kMostTileRows);
  if (group == 1 && most_parts(fewest, steps, kMostSms) == 1) return 0;
  const std::int64_t all =
      std::max<std::int64_t>(1, ceil_of(std::int64_t{kMostItemsOfSm} * kMostSms, heads));
  return Places(g, group, all, all, all * tile_rows(g, group), listed(g)).end;
}

/// Of deterministic launches: which heads are packed is all that is their own.
Split fixed_split(const AttendGeometry& g, int step_keys, int sms, std::int64_t room) {
  const Split split = split_of_sequence(g, step_keys);
  if (!split.merged()) return {};
  const Split packed{split.parts, static_cast<std::int32_t>(packable(g)), split.keys};
  const std::int64_t items = items_of(g);
  const std::int64_t steps = ceil_of(g.sequence_keys, step_keys);
  const bool cheaper = cost_of(items, steps, sms, packed) < cost_of(items, steps, sms, split);
  return cheaper && split_bytes(g, packed) <= room ? packed : split;
}

}  // namespace

Split split_for(std::int64_t items, std::int64_t steps, int sms, std::int64_t group) {
  Split best;
  for (const std::int64_t packed : {std::int64_t{1}, group}) {
    for (int parts = 1; parts <= most_parts(items / packed, steps, sms); ++parts) {
      const Split other{parts, static_cast<std::int32_t>(packed)};
      if (cost_of(items, steps, sms, other) < cost_of(items, steps, sms, best)) best = other;
    }
  }
  return best;
}

Split split_of_sequence(const AttendGeometry& g, int step_keys) {
  const std::int64_t steps = ceil_of(g.sequence_keys, step_keys);
  const std::int64_t length = std::max<std::int64_t>(kLeastSteps, ceil_of(steps, kSequenceParts));
  const Split split{static_cast<std::int32_t>(ceil_of(steps, length)), 1, length * step_keys};
  const std::int64_t rows = g.sequence_rows * g.all_heads;
  if (rows == 0 || split.parts < 2) return {};
  if (rows * split.parts * (g.head_dim_v + 1) * 4 > kMostStateBytes) return {};
  const bool packs = g.sequence_rows * g.group <= kPackedRows;
  const std::int64_t items =
      ceil_of(g.sequence_rows, kPackedRows) * g.all_heads / (packs ? g.group : 1);
  const std::int64_t whole = cost_of(items, steps, kNominalSms, {});
  // Longest lists are what is known: masks may leave most query tiles less, which gain less.
  const std::int64_t cut = cost_of(items, length * split.parts, kNominalSms, split);
  return 8 * cut <= 7 * whole ? split : Split{};
}

Split split_of(const AttendGeometry& g, int step_keys, int sms, std::int64_t room,
               bool deterministic) {
  const std::int64_t items = items_of(g);
  if (items == 0) return {};
  if (deterministic) return fixed_split(g, step_keys, sms, room);
  const std::int64_t steps = most_steps(g, step_keys);
  Split split = split_for(items, steps, sms, packable(g));
  while (split.merged() && split_bytes(g, split) > room) {
    // Heads first: the lists that they copy may be long.
    split = split.group > 1 ? split_for(items, steps, sms, 1) : Split{split.parts - 1, 1};
  }
  return split;
}

std::int64_t split_bytes(const AttendGeometry& g, const Split& split) {
  return places_of(g, split).end;
}

std::int64_t most_split_bytes(const AttendGeometry& g, int step_keys) {
  if (g.heads == 0 || g.batch == 0 || g.rows == 0) return 0;
  const std::int64_t steps = most_steps(g, step_keys);
  const auto group = static_cast<std::int32_t>(packable(g));
  const Split fixed = split_of_sequence(g, step_keys);
  std::int64_t bytes = 0;
  for (const std::int32_t packed : {1, group}) {
    bytes = std::max(bytes, most_bytes(g, steps, packed));
    if (fixed.merged()) bytes = std::max(bytes, fixed_bytes(g, fixed, packed));
  }
  return bytes;
}

Schedule schedule_in(std::byte* workspace, const AttendGeometry& g, const Split& split, int sms) {
  const Sections sections = sections_of(g, sms);
  const std::int32_t heads = sections.heads / split.group;
  // Parts of a split launch are computed all at once: there is nothing to keep in L2 meanwhile, and
  // places without a part come last.
  return {.drawn = reinterpret_cast<int*>(workspace),
          .tiles = reinterpret_cast<QueryTile*>(workspace + kCounterBytes),
          .all = static_cast<std::int32_t>(row_tiles_of(g) * split.parts * heads),
          .head_count = heads,
          .section = split.merged() ? heads : sections.size,
          .sections = split.merged() ? 1 : sections.count,
          .parts = split.parts};
}

bool takes_kept(const AttendGeometry& g, const Split& split) {
  return !split.merged() && g.covered_rows == g.rows;
}

Schedule kept_schedule(const AttendGeometry& g, int sms, bool flops_assign) {
  Schedule schedule = schedule_in(g.kept.data(), g, {}, sms);
  schedule.kept = reinterpret_cast<Kept*>(g.kept.data());
  schedule.flops_assign = flops_assign;
  return schedule;
}

Parts parts_in(std::byte* workspace, const AttendGeometry& g, const Split& split) {
  if (!split.merged()) return {};
  const Places places = places_of(g, split);
  Parts parts{.most = split.parts,
              .rows = static_cast<std::int32_t>(g.rows * split.group),
              .tile_rows = static_cast<std::int32_t>(tile_rows(g, split.group)),
              .group = split.group,
              .keys = split.keys,
              .tiles = reinterpret_cast<SplitTile*>(workspace + places.split_tiles),
              .lse = reinterpret_cast<float*>(workspace + places.lse),
              .state = reinterpret_cast<float*>(workspace + places.state)};
  if (split.group > 1) {
    parts.q = reinterpret_cast<std::uint16_t*>(workspace + places.q);
    parts.key_tiles = reinterpret_cast<Tile*>(workspace + places.key_tiles);
    parts.intervals = reinterpret_cast<KeyInterval*>(workspace + places.intervals);
  }
  return parts;
}

ForwardParams told_to_blocks(const ForwardParams& params, const Parts& parts) {
  if (parts.tiles == nullptr) return params;
  const AttendGeometry& g = params.geometry;
  const std::int64_t heads = g.heads / parts.group;
  const std::int64_t places = static_cast<std::int64_t>(parts.most) * parts.rows;
  ForwardParams told = params;
  told.resume = false;
  told.finish = false;
  told.lse = {parts.lse, DType::f32, heads * places, 1, places};
  told.state = {parts.state, DType::f32, heads * places * g.head_dim_v, g.head_dim_v,
                places * g.head_dim_v};
  if (parts.group > 1) {
    const std::int64_t row = g.head_dim;
    const std::int64_t rows = g.rows * parts.group;
    told.q = {parts.q, params.q.dtype, heads * rows * row, row, rows * row};
  }
  return told;
}

cuda::Geometry told_to_blocks(const cuda::Geometry& geometry, const Parts& parts) {
  if (parts.group == 1) return geometry;
  cuda::Geometry told = geometry;
  told.heads /= parts.group;
  told.head_offset /= parts.group;
  told.group = 1;
  told.rows *= parts.group;
  told.tiles = parts.key_tiles;
  told.intervals = parts.intervals;
  return told;
}

}  // namespace annulus::attn::sm90
