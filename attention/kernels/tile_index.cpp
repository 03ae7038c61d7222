#include "attention/kernels/tile_index.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>
#include <tuple>
#include <utility>

namespace annulus::attn {

namespace {

auto key_order(const Tile& tile) { return std::tuple(tile.segment, tile.key, tile.row); }

bool same_keys(const Tile& a, const Tile& b) { return a.segment == b.segment && a.key == b.key; }

void check(std::span<const Tile> tiles, const TileLimits& limits) {
  if (tiles.size() > std::numeric_limits<std::int32_t>::max()) {
    throw InvalidArgument(fmt::format("{} tiles in one launch", tiles.size()));
  }
  std::int64_t row = 0;      // of the query tile at hand
  std::int64_t row_end = 0;  // of all before it, and of itself
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    const Tile& tile = tiles[i];
    if (tile.rows < 1 || tile.keys < 1 || tile.rows > limits.rows || tile.keys > limits.keys) {
      throw InvalidArgument(fmt::format("tile {} of {} x {} passes the kernel's {} x {}", i,
                                        tile.rows, tile.keys, limits.rows, limits.keys));
    }
    const auto order = [](const Tile& t) { return std::tuple(t.row, t.segment, t.key); };
    if (i > 0 && order(tile) < order(tiles[i - 1])) {
      throw InvalidArgument(fmt::format("tile {} is not sorted", i));
    }
    if (i > 0 && tile.row != row && tile.row < row_end) {
      throw InvalidArgument(fmt::format("tile {} begins at row {}, inside another", i, tile.row));
    }
    row = tile.row;
    row_end = std::max<std::int64_t>(row_end, row + tile.rows);
  }
}

/// Begin of each run of equal neighbours, and the end.
template <typename Same>
std::vector<std::int32_t> runs(std::span<const Tile> tiles, Same&& same) {
  std::vector<std::int32_t> begins;
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    if (i == 0 || !same(tiles[i - 1], tiles[i])) begins.push_back(static_cast<std::int32_t>(i));
  }
  begins.push_back(static_cast<std::int32_t>(tiles.size()));
  return begins;
}

void check_key_tiles(std::span<const Tile> tiles) {
  std::int64_t end = 0;
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    if (i == 0 || tiles[i].segment != tiles[i - 1].segment) end = 0;
    const bool begins = i == 0 || !same_keys(tiles[i - 1], tiles[i]);
    if (begins && tiles[i].key < end) {
      throw InvalidArgument(
          fmt::format("key tiles of segment {} overlap at key {}", tiles[i].segment, tiles[i].key));
    }
    end = std::max(end, tiles[i].key + tiles[i].keys);
  }
}

/// Query tiles do not overlap: a tile has as many rows as its tallest.
std::int64_t covered_rows(std::span<const Tile> tiles, const std::vector<std::int32_t>& begins) {
  std::int64_t rows = 0;
  for (std::size_t r = 0; r + 1 < begins.size(); ++r) {
    std::int32_t tallest = 0;
    for (std::int32_t i = begins[r]; i < begins[r + 1]; ++i) {
      tallest = std::max(tallest, tiles[static_cast<std::size_t>(i)].rows);
    }
    rows += tallest;
  }
  return rows;
}

}  // namespace

std::vector<Tile> disjoint_key_tiles(std::span<const Tile> tiles) {
  std::vector<std::pair<std::int32_t, std::int64_t>> begins;
  for (const Tile& tile : tiles) begins.emplace_back(tile.segment, tile.key);
  std::sort(begins.begin(), begins.end());
  begins.erase(std::unique(begins.begin(), begins.end()), begins.end());
  std::vector<Tile> out;
  for (Tile tile : tiles) {
    const std::int64_t end = tile.key + tile.keys;
    while (tile.key < end) {
      const auto next =
          std::upper_bound(begins.begin(), begins.end(), std::pair(tile.segment, tile.key));
      const bool inside = next != begins.end() && next->first == tile.segment && next->second < end;
      const std::int64_t to = inside ? next->second : end;
      tile.keys = static_cast<std::int32_t>(to - tile.key);
      out.push_back(tile);
      tile.key = to;
    }
  }
  return out;
}

TileIndex make_tile_index(std::span<const Tile> tiles, const TileLimits& limits) {
  check(tiles, limits);
  TileIndex index;
  index.row_tiles = runs(tiles, [](const Tile& a, const Tile& b) { return a.row == b.row; });
  index.covered_rows = covered_rows(tiles, index.row_tiles);

  std::vector<std::int32_t> order(tiles.size());
  std::iota(order.begin(), order.end(), 0);
  const auto tile_at = [&](std::int32_t i) -> const Tile& {
    return tiles[static_cast<std::size_t>(i)];
  };
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return key_order(tile_at(a)) < key_order(tile_at(b));
  });
  for (const std::int32_t i : order) index.tiles_by_key.push_back(tile_at(i));
  check_key_tiles(index.tiles_by_key);
  index.key_tiles = runs(index.tiles_by_key, same_keys);

  // Turns: key tiles from the last to the first, each in its own order.
  std::vector<std::int32_t> next(index.row_tiles.size(), 0);
  index.places.resize(tiles.size());
  for (std::size_t k = index.key_tiles.size() - 1; k-- > 0;) {
    for (std::int32_t i = index.key_tiles[k]; i < index.key_tiles[k + 1]; ++i) {
      const auto after = std::upper_bound(index.row_tiles.begin(), index.row_tiles.end() - 1,
                                          order[static_cast<std::size_t>(i)]);
      const auto row_tile = static_cast<std::size_t>(after - index.row_tiles.begin() - 1);
      index.places[static_cast<std::size_t>(i)] = {static_cast<std::int32_t>(row_tile),
                                                   next[row_tile]++};
    }
  }
  return index;
}

namespace {

bool continues_keys(const Tile& a, const Tile& b) {
  return a.row == b.row && a.rows == b.rows && a.segment == b.segment && a.full == b.full &&
         a.key + a.keys == b.key && a.keys <= std::numeric_limits<std::int32_t>::max() - b.keys;
}

bool continues_rows(const Tile& a, const Tile& b) {
  return same_keys(a, b) && a.keys == b.keys && a.full == b.full &&
         std::int64_t{a.row} + a.rows == b.row;
}

/// Joins within each run of `begins`; where runs begin afterwards, and the end, goes to `after`.
template <typename Continues, typename Join>
std::vector<Tile> join(std::span<const Tile> tiles, const std::vector<std::int32_t>& begins,
                       Continues&& continues, Join&& grow, std::vector<std::int32_t>& after) {
  std::vector<Tile> joined;
  for (std::size_t r = 0; r + 1 < begins.size(); ++r) {
    after.push_back(static_cast<std::int32_t>(joined.size()));
    for (std::int32_t i = begins[r]; i < begins[r + 1]; ++i) {
      const Tile& tile = tiles[static_cast<std::size_t>(i)];
      if (i > begins[r] && continues(joined.back(), tile)) {
        grow(joined.back(), tile);
      } else {
        joined.push_back(tile);
      }
    }
  }
  after.push_back(static_cast<std::int32_t>(joined.size()));
  return joined;
}

}  // namespace

JoinedTiles join_tiles(std::span<const Tile> tiles, const TileIndex& index) {
  JoinedTiles out;
  out.index.covered_rows = index.covered_rows;
  out.tiles = join(
      tiles, index.row_tiles, continues_keys, [](Tile& a, const Tile& b) { a.keys += b.keys; },
      out.index.row_tiles);
  out.index.tiles_by_key = join(
      index.tiles_by_key, index.key_tiles, continues_rows,
      [](Tile& a, const Tile& b) { a.rows += b.rows; }, out.index.key_tiles);
  return out;
}

}  // namespace annulus::attn
