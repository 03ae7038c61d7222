#include "attention/kernels/cpu/blocks.h"

#include <annulus/error.h>

#include <fmt/format.h>

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

}  // namespace

void check_row_groups(const AttendGeometry& geometry) {
  std::int64_t group = 0;
  std::int64_t covered = 0;
  for (const Tile& tile : geometry.tiles) {
    if (tile.row != group && tile.row < covered) {
      throw InvalidArgument(
          fmt::format("flash2: a tile begins at row {}, but earlier tiles cover rows up to {}",
                      tile.row, covered));
    }
    group = tile.row;
    covered = std::max<std::int64_t>(covered, tile.row + tile.rows);
  }
}

RowGroup row_group(const AttendGeometry& geometry, std::int64_t row, std::size_t tile) {
  const std::span<const Tile> left = geometry.tiles.subspan(tile);
  if (left.empty()) return {row, geometry.rows - row, {}};
  const std::int64_t begin = left.front().row;
  if (begin > row) return {row, std::min(begin, geometry.rows) - row, {}};
  std::size_t count = 0;
  std::int64_t rows = 1;
  for (; count < left.size() && left[count].row == begin; ++count) {
    rows = std::max<std::int64_t>(rows, left[count].rows);
  }
  return {row, std::min(rows, geometry.rows - row), left.first(count)};
}

void find_tokens(const AttendGeometry& geometry, RowBlock& block) {
  for (const QuerySegment& segment : geometry.queries) {
    const std::int64_t begin = std::max(segment.row, block.row);
    const std::int64_t end = std::min(segment.row + segment.count, block.row + block.rows);
    for (std::int64_t row = begin; row < end; ++row) {
      block.tokens[static_cast<std::size_t>(row - block.row)] = segment.token + row - segment.row;
    }
  }
}

KeyBlock key_block(const AttendGeometry& geometry, const RowBlock& block, const Tile& tile,
                   std::int64_t first) {
  const KeySegment& segment = geometry.keys[static_cast<std::size_t>(tile.segment)];
  KeyBlock part{};
  part.token = segment.token + tile.key + first;
  part.keys = std::min(kKeys, tile.keys - first);
  part.rows = std::min(block.rows, tile.row + tile.rows - block.row);
  // The vectors of a tile that ends inside the block reach into rows it does not cover.
  part.masked = !tile.full || part.rows < block.rows;
  if (!part.masked) return part;
  const std::int64_t position = segment.position + (tile.key + first) * segment.stride;
  for (std::int64_t i = 0; i < part.rows; ++i) {
    const auto row = static_cast<std::size_t>(i);
    if (tile.full) {
      set_range(part.ranges, 0, row, {0, part.keys});
      continue;
    }
    const RowIntervals& seen = geometry.intervals[static_cast<std::size_t>(block.row + i)];
    for (std::size_t which = 0; which < seen.size(); ++which) {
      set_range(part.ranges, which, row,
                indices_of(seen[which], position, segment.stride, part.keys));
    }
  }
  return part;
}

}  // namespace annulus::attn::cpu
