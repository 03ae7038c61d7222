#include "attention/kernels/sm90/kept.h"

#include "attention/kernels/sm90/schedule.h"

#include <algorithm>
#include <cstring>

namespace annulus::attn::sm90 {
namespace {

/// Of rows [row, row + rows), if they are tokens in a row; else -1.
std::int64_t token_of(const AttendGeometry& g, std::int64_t row, std::int64_t rows) {
  for (const QuerySegment& s : g.queries) {
    if (s.row <= row && row + rows <= s.row + s.count) return row + s.token - s.row;
  }
  return -1;
}

QueryTile query_tile(const AttendGeometry& g, std::size_t i, int step_keys) {
  const std::int32_t begin = g.row_tiles[i], end = g.row_tiles[i + 1];
  QueryTile whole{.row = g.tiles[static_cast<std::size_t>(begin)].row,
                  .rows = 0,
                  .begin = begin,
                  .end = end,
                  .steps = 0,
                  .skip = 0,
                  .token = -1,
                  .place = -1};
  for (std::int32_t t = begin; t < end; ++t) {
    const Tile& tile = g.tiles[static_cast<std::size_t>(t)];
    whole.rows = std::max(whole.rows, tile.rows);
    whole.steps += (tile.keys + step_keys - 1) / step_keys;
  }
  whole.token = whole.place = token_of(g, whole.row, whole.rows);
  return whole;
}

}  // namespace

std::vector<std::byte> make_kept(const AttendGeometry& g, int step_keys) {
  const std::size_t count = g.row_tiles.empty() ? 0 : g.row_tiles.size() - 1;
  std::vector<QueryTile> order;
  // Of equally long ones the later goes first.
  for (std::size_t i = count; i > 0; --i) order.push_back(query_tile(g, i - 1, step_keys));
  std::stable_sort(order.begin(), order.end(),
                   [](const QueryTile& a, const QueryTile& b) { return a.steps > b.steps; });
  std::vector<std::byte> kept(
      static_cast<std::size_t>(schedule_bytes(static_cast<std::int64_t>(count))));
  if (count > 0) {
    std::memcpy(kept.data() + kCounterBytes, order.data(), count * sizeof(QueryTile));
  }
  return kept;
}

}  // namespace annulus::attn::sm90
