#include "attention/kernels/cpu/blocks.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <utility>

namespace annulus::attn::cpu {

namespace {

/// Key indices of [begin, end) among `keys` positions from `position` in steps of `stride`.
KeyInterval indices_of(const KeyInterval& interval, std::int64_t position, std::int64_t stride,
                       std::int64_t keys) {
  const auto index_of = [&](std::int64_t bound) {
    const std::int64_t distance = bound - position;
    if (distance <= 0) return std::int64_t{0};
    return std::min(keys, (distance + stride - 1) / stride);
  };
  if (interval.end <= interval.begin) return {0, 0};
  return {index_of(interval.begin), index_of(interval.end)};
}

void set_range(RowRanges& ranges, std::size_t which, std::size_t row, const KeyInterval& range) {
  ranges.begin[which][row] = static_cast<std::int32_t>(range.begin);
  ranges.end[which][row] = static_cast<std::int32_t>(range.end);
}

/// Spans of rows [begin, end) that share `tiles`.
void add_spans(std::int64_t begin, std::int64_t end, std::span<const Tile> tiles,
               std::vector<RowSpan>& spans) {
  for (std::int64_t row = begin; row < end; row += kRows) {
    spans.push_back({row, std::min(kRows, end - row), tiles});
  }
}

void check_sorted(std::span<const Tile> tiles) {
  for (std::size_t i = 1; i < tiles.size(); ++i) {
    const Tile &a = tiles[i - 1], &b = tiles[i];
    if (std::pair(a.segment, a.key) <= std::pair(b.segment, b.key)) continue;
    throw InvalidArgument(fmt::format("tiles of row {}: segment {} key {} comes before {} {}",
                                      a.row, a.segment, a.key, b.segment, b.key));
  }
}

}  // namespace

std::vector<RowSpan> row_spans(const AttendGeometry& geometry) {
  std::vector<RowSpan> spans;
  std::int64_t covered = 0;
  for (std::size_t i = 0; i < geometry.tiles.size();) {
    const std::int64_t row = geometry.tiles[i].row;
    if (row < covered) {
      throw InvalidArgument(fmt::format(
          "a tile begins at row {}, but earlier tiles cover rows up to {}", row, covered));
    }
    std::size_t end = i;
    std::int64_t rows = 0;
    for (; end < geometry.tiles.size() && geometry.tiles[end].row == row; ++end) {
      rows = std::max<std::int64_t>(rows, geometry.tiles[end].rows);
    }
    const std::span<const Tile> tiles = geometry.tiles.subspan(i, end - i);
    check_sorted(tiles);
    add_spans(covered, row, {}, spans);
    covered = std::min(row + rows, geometry.rows);
    add_spans(row, covered, tiles, spans);
    i = end;
  }
  add_spans(covered, geometry.rows, {}, spans);
  return spans;
}

RowBlock::RowBlock(const AttendGeometry& geometry, const RowSpan& span)
    : row(span.row), rows(span.rows) {
  for (const QuerySegment& segment : geometry.queries) {
    const std::int64_t begin = std::max(segment.row, row);
    const std::int64_t end = std::min(segment.row + segment.count, row + rows);
    for (std::int64_t i = begin; i < end; ++i) {
      tokens[static_cast<std::size_t>(i - row)] = segment.token + i - segment.row;
    }
  }
}

KeyBlock key_block(const AttendGeometry& geometry, std::int64_t row, std::int64_t rows,
                   const Tile& tile, const KeySpan& keys) {
  const KeySegment& segment = geometry.keys[static_cast<std::size_t>(tile.segment)];
  KeyBlock part{};
  part.token = segment.token + keys.key;
  part.keys = keys.keys;
  part.rows = std::min(rows, tile.row + tile.rows - row);
  // The vectors of a tile that ends inside the block reach into rows it does not cover.
  part.masked = !tile.full || part.rows < rows || tile.row > row;
  if (!part.masked) return part;
  const std::int64_t position = segment.position + keys.key * segment.stride;
  for (std::int64_t i = std::max<std::int64_t>(0, tile.row - row); i < part.rows; ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (tile.full) {
      set_range(part.ranges, 0, at, {0, part.keys});
      continue;
    }
    const RowIntervals& seen = geometry.intervals[static_cast<std::size_t>(row + i)];
    for (std::size_t which = 0; which < seen.size(); ++which) {
      set_range(part.ranges, which, at,
                indices_of(seen[which], position, segment.stride, part.keys));
    }
  }
  return part;
}

}  // namespace annulus::attn::cpu
