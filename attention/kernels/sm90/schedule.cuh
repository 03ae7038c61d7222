#pragma once

#include "attention/kernels/cuda/device/places.cuh"
#include "attention/kernels/sm90/schedule.h"

namespace annulus::attn::sm90 {

/// Steps of at most `step_keys` keys that query tile `i` is walked in. Of long lists of joined
/// tiles most have one or two entries: these are read at once.
__device__ inline int steps_of(const cuda::Geometry& g, int i, int step_keys) {
  const int begin = g.row_tiles[i];
  const int end = g.row_tiles[i + 1];
  const auto of = [&](int tile) { return (g.tiles[tile].keys + step_keys - 1) / step_keys; };
  int steps = of(begin) + (end - begin > 1 ? of(end - 1) : 0);
  for (int tile = begin + 1; tile < end - 1; ++tile) steps += of(tile);
  return steps;
}

/// How many parts a query tile of so many steps has, and how long the longest is.
struct PartCount {
  int parts, length;
  __device__ PartCount(int steps, int most)
      : parts(max(1, min(most, steps / kLeastSteps))),
        length(parts == 1 ? steps : (steps + parts - 1) / parts) {}
  __device__ PartCount(int parts_there, int steps, int most_steps)
      : parts(parts_there), length(min(steps, most_steps)) {}
};

/// Tile `t` of the list as parts of fixed positions see it: where its steps begin. Keys that are no
/// neighbours stay together.
struct StepPositions {
  std::int64_t first;
  int steps;
  bool neighbours;
  __device__ StepPositions(const cuda::Geometry& g, int t, int step_keys) {
    const Tile& tile = g.tiles[t];
    const KeySegment& from = g.keys[tile.segment];
    first = from.position + tile.key * from.stride;
    steps = (tile.keys + step_keys - 1) / step_keys;
    neighbours = from.stride == 1;
  }
  __device__ std::int64_t last(int step_keys) const {
    return neighbours ? first + static_cast<std::int64_t>(steps - 1) * step_keys : first;
  }
};

/// Steps of the list before part `n` of fixed positions: before the first step that begins in it,
/// or behind it. So each part is a run of the list, in whatever order its keys are.
__device__ inline int steps_before(const cuda::Geometry& g, const Parts& parts,
                                   const QueryTile& whole, int n, int step_keys) {
  if (n >= parts.most) return whole.steps;
  const std::int64_t cut = n * parts.keys;
  int before = 0;
  for (int t = whole.begin; t < whole.end; ++t) {
    const StepPositions at(g, t, step_keys);
    if (at.last(step_keys) >= cut) {
      return at.first >= cut
                 ? before
                 : before + static_cast<int>((cut - at.first + step_keys - 1) / step_keys);
    }
    before += at.steps;
  }
  return whole.steps;
}

/// How many parts of fixed positions query tile `i` has.
__device__ inline int parts_there(const cuda::Geometry& g, const Parts& parts, int i,
                                  int step_keys) {
  const auto part_of = [&](std::int64_t position) {
    const int last = parts.most - 1;
    return position >= last * parts.keys ? last : static_cast<int>(position / parts.keys);
  };
  int seen = -1;
  int count = 0;
  for (int t = g.row_tiles[i]; t < g.row_tiles[i + 1]; ++t) {
    const StepPositions at(g, t, step_keys);
    const int last = part_of(at.last(step_keys));
    if (last <= seen) continue;
    count += last - max(seen, part_of(at.first) - 1);
    seen = last;
  }
  return count;
}

template <bool kSplit>
__device__ inline PartCount part_count(const cuda::Geometry& g, const Parts& parts, int i,
                                       int step_keys) {
  const int steps = steps_of(g, i, step_keys);
  if (!kSplit || parts.keys == 0) return {steps, kSplit ? parts.most : 1};
  return {parts_there(g, parts, i, step_keys), steps, static_cast<int>(parts.keys / step_keys)};
}

/// Of a query tile that is split: its parts to their places, `first` and those after it, by the
/// lanes of a warp.
__device__ inline void place_parts(const cuda::Geometry& g, const Schedule& to, const Parts& parts,
                                   const QueryTile& whole, int i, int first, int lane,
                                   int step_keys) {
  const int count = PartCount(whole.steps, parts.most).parts;
  const auto begin_of = [&](int n) {
    if (parts.keys > 0) return steps_before(g, parts, whole, n, step_keys);
    return n < count ? n * whole.steps / count : whole.steps;
  };
  std::uint64_t all = 0;
  for (int at = 0; at < parts.most; at += 32) {
    const int n = at + lane;
    int before = begin_of(n);
    QueryTile part = whole;
    part.steps = begin_of(n + 1) - before;
    const unsigned there = __ballot_sync(0xffffffffU, part.steps > 0);
    all |= static_cast<std::uint64_t>(there) << at;
    const int place = first + __popc(there & ((1U << lane) - 1));
    first += __popc(there);
    if (part.steps == 0) continue;
    for (;; ++part.begin) {
      const int steps = (g.tiles[part.begin].keys + step_keys - 1) / step_keys;
      if (before < steps) break;
      before -= steps;
    }
    part.skip = before * step_keys;
    part.place = static_cast<std::int64_t>(n) * parts.rows + whole.row;
    to.tiles[place] = part;
  }
  if (lane == 0) parts.tiles[i] = {whole.row, whole.rows, all};
}

/// One warp: query tile `i` to its place in the schedule, which is how many are longer. Of equal
/// ones the later goes first, as under a causal mask. Places that remain, for not every query tile
/// has as many parts as it may, say that there is no more. Launches that are not split have code of
/// their own, for whatever stands before a launch's first copy is fetched from memory then.
template <bool kSplit>
__device__ inline void place_query_tile(const cuda::Geometry& g, const Schedule& to,
                                        const Parts& parts, int i, int lane, int step_keys) {
  const int steps = steps_of(g, i, step_keys);
  const int length = part_count<kSplit>(g, parts, i, step_keys).length;
  const int begin = g.row_tiles[i];
  const int end = g.row_tiles[i + 1];
  int rows = 0;
  for (int t = begin + lane; t < end; t += 32) rows = max(rows, g.tiles[t].rows);
  int before = 0;
  int all = 0;
#pragma unroll 4
  for (int j = lane; j < g.row_tile_count; j += 32) {
    const PartCount others = part_count<kSplit>(g, parts, j, step_keys);
    if (others.length > length || (others.length == length && j > i)) before += others.parts;
    all += others.parts;
  }
  for (int step = 16; step > 0; step /= 2) {
    rows = max(rows, __shfl_xor_sync(0xffffffffU, rows, step));
    before += __shfl_xor_sync(0xffffffffU, before, step);
    if (kSplit) all += __shfl_xor_sync(0xffffffffU, all, step);
  }
  const int row = g.tiles[begin].row;
  const cuda::RowTokens tokens(g, row, rows);
  const std::int64_t token = tokens.one ? row + tokens.shift : -1;
  QueryTile whole{row, rows, begin, end, steps, 0, token, token};
  if constexpr (!kSplit) {
    if (lane == 0) to.tiles[before] = whole;
    return;
  }
  if (parts.group > 1) {
    whole.row *= parts.group;
    whole.rows *= parts.group;
    whole.token = whole.row;
  }
  place_parts(g, to, parts, whole, i, before, lane, step_keys);
  if (i != 0) return;
  for (int j = all + lane; j < g.row_tile_count * parts.most; j += 32) {
    to.tiles[j] = {0, 0, 0, 0, 0, 0, 0, 0};
  }
}

/// The same for key tile `i`. Where dQ is added in turns, later keys go first (TilePlace), so that
/// whom a block waits for has been drawn before.
__device__ inline void place_key_tile(const cuda::Geometry& g, const KeySchedule& to, int i,
                                      int lane, bool ordered) {
  const int begin = g.key_tiles[i];
  const int end = g.key_tiles[i + 1];
  int keys = 0;
  for (int t = begin + lane; t < end; t += 32) keys = max(keys, g.tiles_by_key[t].keys);
  int before = 0;
  for (int j = lane; j < g.key_tile_count; j += 32) {
    const int length = g.key_tiles[j + 1] - g.key_tiles[j];
    const bool longer = length > end - begin || (length == end - begin && j < i);
    if (ordered ? j > i : longer) ++before;
  }
  for (int step = 16; step > 0; step /= 2) {
    keys = max(keys, __shfl_xor_sync(0xffffffffU, keys, step));
    before += __shfl_xor_sync(0xffffffffU, before, step);
  }
  if (lane == 0) to.tiles[before] = {keys, begin, end};
}

/// Query tiles: the last section has all that is left.
__device__ inline int section_at(const Schedule& s, int number) {
  return min(number, s.sections - 1);
}
/// Key tiles: there is not more left than a section. The backward's loader has few registers.
__device__ inline int section_at(const KeySchedule& /*s*/, int number) { return number; }

/// Item `index` of the order, with `tile_count` tiles a head and `heads_of_batch` heads a batch.
template <typename Tile>
__device__ inline ItemOf<Tile> item_of(const ScheduleOf<Tile>& s, int tile_count,
                                       int heads_of_batch, int index) {
  const int whole = s.section * tile_count;
  const int number = section_at(s, index / whole);
  const int heads = number + 1 < s.sections ? s.section : s.head_count - number * s.section;
  const int rest = index - number * whole;
  const int tile = rest / heads;
  const int head = number * s.section + rest - tile * heads;
  const int batch = head / heads_of_batch;
  return {s.tiles[tile], head - batch * heads_of_batch, batch};
}

/// Item `index` of the order; behind the last one there are items without steps.
__device__ inline Item item_of(const cuda::Geometry& g, const Schedule& s, int index) {
  if (index >= s.all) return {{0, 0, 0, 0, 0, 0, 0, 0}, 0, 0, 0};
  const ItemOf<QueryTile> item =
      item_of(s, g.row_tile_count * s.parts, static_cast<int>(g.heads), index);
  // Divided once an item and in 32 bits: the loader has few registers.
  const int kv_head = (static_cast<int>(g.head_offset) + item.head) / static_cast<int>(g.group);
  return {item.tile, item.head, kv_head, item.batch};
}

}  // namespace annulus::attn::sm90
