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
constexpr std::int64_t kAlignment = 64;

std::int64_t ceil_of(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::int64_t aligned_up(std::int64_t bytes) { return ceil_of(bytes, kAlignment) * kAlignment; }

/// Steps of the longest query tile, or more: the host sees neither mask nor segments.
std::int64_t most_steps(const AttendGeometry& g, int step_keys) {
  const std::int64_t keys =
      g.sequence_keys > 0 ? std::min(g.key_tokens, g.sequence_keys) : g.key_tokens;
  return ceil_of(keys, step_keys);
}

/// Rows that a part has places for.
std::int64_t rows_of(const AttendGeometry& g) {
  return std::min<std::int64_t>(g.rows, kMostTileRows);
}

std::int64_t row_tiles_of(const AttendGeometry& g) {
  return g.row_tiles.empty() ? 0 : static_cast<std::int64_t>(g.row_tiles.size()) - 1;
}

/// Bytes at which the parts of a workspace begin.
struct Places {
  std::int64_t tiles, split_tiles, lse, state, end;
  Places(const AttendGeometry& g, std::int64_t row_tiles, int parts) : tiles(kCounterBytes) {
    const std::int64_t rows = row_tiles * parts * rows_of(g) * g.heads * g.batch;
    split_tiles = aligned_up(schedule_bytes(row_tiles * parts));
    lse = aligned_up(split_tiles + row_tiles * static_cast<std::int64_t>(sizeof(SplitTile)));
    state = aligned_up(lse + rows * 4);
    end = state + rows * g.head_dim_v * 4;
  }
};

/// How long the longest of the blocks is at work.
std::int64_t cost_of(std::int64_t items, std::int64_t steps, int sms, int parts) {
  return ceil_of(items * parts, sms) * (ceil_of(steps, parts) + kItemSteps) +
         (parts > 1 ? kMergeSteps : 0);
}

int most_parts(std::int64_t items, std::int64_t steps, int sms) {
  if (items == 0) return 1;
  const std::int64_t most = std::min<std::int64_t>(
      {kMostParts, steps / kLeastSteps, std::int64_t{kMostItemsOfSm} * sms / items});
  return static_cast<int>(std::max<std::int64_t>(1, most));
}

}  // namespace

int parts_for(std::int64_t items, std::int64_t steps, int sms) {
  int best = 1;
  for (int parts = 2; parts <= most_parts(items, steps, sms); ++parts) {
    if (cost_of(items, steps, sms, parts) < cost_of(items, steps, sms, best)) best = parts;
  }
  return best;
}

int parts_of(const AttendGeometry& g, int step_keys, int sms, std::int64_t room,
             bool deterministic) {
  if (deterministic) return 1;
  int parts = parts_for(items_of(g), most_steps(g, step_keys), sms);
  while (parts > 1 && split_bytes(g, row_tiles_of(g), parts) > room) --parts;
  return parts;
}

std::int64_t split_bytes(const AttendGeometry& g, std::int64_t row_tiles, int parts) {
  return Places(g, row_tiles, parts).end;
}

std::int64_t most_split_bytes(const AttendGeometry& g, int step_keys) {
  const std::int64_t heads = g.heads * g.batch;
  const std::int64_t tiles = ceil_of(g.rows, kMostTileRows);
  const int parts = most_parts(tiles * heads, most_steps(g, step_keys), kMostSms);
  if (parts == 1) return 0;
  // More query tiles have fewer parts, and as many in all.
  const std::int64_t all = ceil_of(std::int64_t{kMostItemsOfSm} * kMostSms, heads);
  return split_bytes(g, all, 1);
}

Schedule schedule_in(std::byte* workspace, const AttendGeometry& g, int parts) {
  const Places places(g, row_tiles_of(g), parts);
  const Sections sections = sections_of(g);
  // Parts of a split launch are computed all at once: there is nothing to keep in L2 meanwhile, and
  // places without a part come last.
  return {.drawn = reinterpret_cast<int*>(workspace),
          .tiles = reinterpret_cast<QueryTile*>(workspace + places.tiles),
          .all = static_cast<std::int32_t>(items_of(g) * parts),
          .head_count = sections.heads,
          .section = parts > 1 ? sections.heads : sections.size,
          .parts = parts};
}

Parts parts_in(std::byte* workspace, const AttendGeometry& g, int parts) {
  if (parts == 1) return {};
  const Places places(g, row_tiles_of(g), parts);
  return {.most = parts,
          .rows = static_cast<std::int32_t>(rows_of(g)),
          .tiles = reinterpret_cast<SplitTile*>(workspace + places.split_tiles),
          .lse = reinterpret_cast<float*>(workspace + places.lse),
          .state = reinterpret_cast<float*>(workspace + places.state)};
}

ForwardParams leaving_parts(const ForwardParams& params, const Parts& parts) {
  const AttendGeometry& g = params.geometry;
  const std::int64_t places = row_tiles_of(g) * parts.most * parts.rows;
  ForwardParams told = params;
  told.resume = false;
  told.finish = false;
  told.lse = {parts.lse, DType::f32, g.heads * places, 1, places};
  told.state = {parts.state, DType::f32, g.heads * places * g.head_dim_v, g.head_dim_v,
                places * g.head_dim_v};
  return told;
}

}  // namespace annulus::attn::sm90
