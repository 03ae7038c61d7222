// Row tables against brute force: pairs, needed keys, tiles, intervals.

#include "attention/row_table.h"
#include "tests/attention/brute_mask.h"
#include "tests/attention/random_request.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <utility>

namespace annulus::attn {
namespace {

using test::BruteMask;
using test::Random;

constexpr int kCases = 1500;

/// A random mask, some of its query rows in some order, and some keys.
struct Case {
  explicit Case(std::uint64_t seed, bool two_intervals = false) : random(seed) {
    do {
      problem = test::random_problem(random, 70, 2);
    } while (two_intervals && BruteMask(problem).most_runs() > 2);
    ranges = test::random_shards(random, problem.seq, 2)[0];
    keys = random_keys();
    for (const TokenRange& range : ranges) {
      for (std::int64_t i = 0; i < range.count; ++i) queries.push_back(range.position(i));
    }
    grid = {random.any_of<std::int64_t>({1, 2, 5, 8, 64}),
            random.any_of<std::int64_t>({1, 2, 5, 8, 64})};
  }

  TokenRange random_keys() {
    const std::int64_t seq_kv = *problem.seq_kv;
    TokenRange range;
    range.stride = random.between(1, random.one_in(3) ? 9 : 3);
    range.begin = random.between(0, std::max<std::int64_t>(seq_kv - 1, 0));
    const std::int64_t most = (seq_kv - range.begin + range.stride - 1) / range.stride;
    range.count = random.one_in(2) ? most : random.between(0, most);
    return range;
  }

  std::string words() const {
    return fmt::format("mask {} seq {} seq_kv {} rows {} keys {}+{}*{} grid {}x{}",
                       problem.mask.name(), problem.seq, *problem.seq_kv, queries.size(),
                       keys.begin, keys.count, keys.stride, grid.tile_q, grid.tile_k);
  }

  Random random;
  Problem problem;
  Shard ranges;
  TokenRange keys;
  std::vector<std::int64_t> queries;
  TileGrid grid;
};

/// For each (first row, tile of the key grid): the keys in it and the unmasked pairs.
struct BruteTile {
  std::int64_t rows = 0;
  std::int64_t first = 0;
  std::int64_t keys = 0;
  std::int64_t pairs = 0;
};

std::vector<BruteTile> brute_tiles(const Case& c, const BruteMask& brute) {
  std::vector<BruteTile> tiles;
  const auto rows = static_cast<std::int64_t>(c.queries.size());
  for (std::int64_t row = 0; row < rows; row += c.grid.tile_q) {
    const std::int64_t end = std::min(rows, row + c.grid.tile_q);
    std::map<std::int64_t, BruteTile> by_number;
    for (std::int64_t i = 0; i < c.keys.count; ++i) {
      BruteTile& tile = by_number[c.keys.position(i) / c.keys.stride / c.grid.tile_k];
      if (tile.keys++ == 0) tile.first = i;
      tile.rows = end - row;
      for (std::int64_t r = row; r < end; ++r) {
        tile.pairs +=
            brute.sees(c.queries[static_cast<std::size_t>(r)], c.keys.position(i)) ? 1 : 0;
      }
    }
    for (const auto& [number, tile] : by_number) {
      if (tile.pairs > 0) tiles.push_back(tile);
    }
  }
  return tiles;
}

TEST(RowTable, CountsPairsOfStridedKeysForRandomRows) {
  for (std::uint64_t seed = 0; seed < kCases; ++seed) {
    Case c(seed);
    SCOPED_TRACE(fmt::format("seed {}: {}", seed, c.words()));
    const BruteMask brute(c.problem);
    const RowTable table(compile_bands(c.problem), c.ranges);
    ASSERT_EQ(table.rows(), static_cast<std::int64_t>(c.queries.size()));
    std::int64_t pairs = 0;
    for (const std::int64_t q : c.queries) {
      for (std::int64_t i = 0; i < c.keys.count; ++i) pairs += brute.sees(q, c.keys.position(i));
    }
    ASSERT_EQ(table.pairs(c.keys), pairs);
  }
}

TEST(RowTable, NeedsTheKeysThatSomeRowSees) {
  for (std::uint64_t seed = 0; seed < kCases; ++seed) {
    Case c(seed);
    SCOPED_TRACE(fmt::format("seed {}: {}", seed, c.words()));
    const BruteMask brute(c.problem);
    const RowTable table(compile_bands(c.problem), c.ranges);
    std::vector<KeyInterval> needed;
    for (std::int64_t j = 0; j < *c.problem.seq_kv; ++j) {
      const bool seen = std::any_of(c.queries.begin(), c.queries.end(),
                                    [&](std::int64_t q) { return brute.sees(q, j); });
      if (!seen) continue;
      if (!needed.empty() && needed.back().end == j) {
        ++needed.back().end;
      } else {
        needed.push_back({j, j + 1});
      }
    }
    ASSERT_EQ(table.needed_keys(), needed);
  }
}

TEST(RowTable, ListsEveryTileWithAPairAndNoOther) {
  for (std::uint64_t seed = 0; seed < kCases; ++seed) {
    Case c(seed, true);
    SCOPED_TRACE(fmt::format("seed {}: {}", seed, c.words()));
    const BruteMask brute(c.problem);
    const RowTable table(compile_bands(c.problem), c.ranges);
    std::vector<Tile> tiles;
    table.tiles(c.grid, 3, c.keys, tiles);
    const std::vector<BruteTile> expected = brute_tiles(c, brute);
    ASSERT_EQ(tiles.size(), expected.size());
    std::int64_t executed = 0;
    std::int64_t row = -1;
    for (std::size_t t = 0; t < tiles.size(); ++t) {
      SCOPED_TRACE(fmt::format("tile {}: row {} key {}", t, tiles[t].row, tiles[t].key));
      ASSERT_EQ(tiles[t].segment, 3);
      ASSERT_EQ(tiles[t].row % c.grid.tile_q, 0);
      ASSERT_GE(tiles[t].row, row);
      row = tiles[t].row;
      ASSERT_EQ(tiles[t].rows, expected[t].rows);
      ASSERT_EQ(tiles[t].key, expected[t].first);
      ASSERT_EQ(tiles[t].keys, expected[t].keys);
      ASSERT_EQ(tiles[t].full, expected[t].pairs == expected[t].rows * expected[t].keys);
      executed += std::int64_t{tiles[t].rows} * tiles[t].keys;
    }
    ASSERT_EQ(table.tile_pairs(c.grid, c.keys), executed);
  }
}

/// How often each (row, key) is computed by tiles and row intervals, as kernels do.
std::vector<int> played(const Case& c, const RowTable& table, const std::vector<Tile>& tiles) {
  const std::vector<RowIntervals> rows = table.intervals();
  const auto n = static_cast<std::size_t>(c.keys.count);
  std::vector<int> count(c.queries.size() * n, 0);
  for (const Tile& tile : tiles) {
    for (std::int64_t r = tile.row; r < tile.row + tile.rows; ++r) {
      for (std::int64_t j = tile.key; j < tile.key + tile.keys; ++j) {
        const std::int64_t position = c.keys.position(j);
        const RowIntervals& row = rows[static_cast<std::size_t>(r)];
        const bool sees = std::any_of(row.begin(), row.end(), [&](const KeyInterval& k) {
          return k.begin <= position && position < k.end;
        });
        if (tile.full || sees)
          ++count[static_cast<std::size_t>(r) * n + static_cast<std::size_t>(j)];
      }
    }
  }
  return count;
}

TEST(RowTable, TilesOfAnyMaskPlayEachUnmaskedPairOnce) {
  int beyond = 0;
  for (std::uint64_t seed = 0; seed < kCases; ++seed) {
    Case c(seed);
    SCOPED_TRACE(fmt::format("seed {}: {}", seed, c.words()));
    const BruteMask brute(c.problem);
    if (brute.most_runs() > 2) ++beyond;
    const RowTable table(compile_bands(c.problem), c.ranges);
    std::vector<Tile> tiles;
    table.tiles(c.grid, 0, c.keys, tiles);
    std::int64_t executed = 0;
    for (std::size_t t = 0; t < tiles.size(); ++t) {
      executed += std::int64_t{tiles[t].rows} * tiles[t].keys;
      ASSERT_LE(tiles[t].keys, c.grid.tile_k);
      ASSERT_LE(tiles[t].rows, c.grid.tile_q);
      if (t == 0) continue;
      const Tile& last = tiles[t - 1];  // query tiles share no row, tiles of one share no key
      ASSERT_TRUE(tiles[t].row == last.row ? tiles[t].key >= last.key + last.keys
                                           : tiles[t].row >= last.row + last.rows);
    }
    ASSERT_EQ(table.tile_pairs(c.grid, c.keys), executed);
    const std::vector<int> count = played(c, table, tiles);
    for (std::size_t i = 0; i < count.size(); ++i) {
      const auto r = i / static_cast<std::size_t>(c.keys.count);
      const auto j = static_cast<std::int64_t>(i % static_cast<std::size_t>(c.keys.count));
      ASSERT_EQ(count[i], brute.sees(c.queries[r], c.keys.position(j)) ? 1 : 0);
    }
  }
  EXPECT_GT(beyond, kCases / 10);
}

TEST(RowTable, CountsTilesOfManySegmentsLikeOneByOne) {
  for (std::uint64_t seed = 0; seed < kCases; ++seed) {
    Case c(seed);
    SCOPED_TRACE(fmt::format("seed {}: {}", seed, c.words()));
    const RowTable table(compile_bands(c.problem), c.ranges);
    // The keys cut into pieces of 1, 2, 3, ... tokens, in reverse.
    std::vector<TokenRange> pieces;
    for (std::int64_t at = 0, n = 1; at < *c.problem.seq_kv; at += n++) {
      pieces.insert(pieces.begin(), {at, std::min(n, *c.problem.seq_kv - at), 1});
    }
    std::int64_t sum = 0;
    for (const TokenRange& piece : pieces) sum += table.tile_pairs(c.grid, piece);
    ASSERT_EQ(table.tile_pairs(c.grid, pieces), sum);
  }
}

TEST(RowTable, KeyTilesOfTwoSegmentsLieOnOneGrid) {
  Problem p;
  p.seq = 200;
  p.mask = Mask::full();
  const std::vector<TokenRange> rows{{0, 10, 1}};
  const RowTable table(compile_bands(resolved(p)), rows);
  std::vector<Tile> tiles;
  table.tiles({64, 64}, 0, {100, 100, 1}, tiles);
  ASSERT_EQ(tiles.size(), 3U);
  EXPECT_EQ(tiles[0].keys, 28);  // 100..127
  EXPECT_EQ(tiles[1].keys, 64);
  EXPECT_EQ(tiles[2].keys, 8);
}

TEST(RowTable, AStridedTileWhoseGapHoldsNoKeyIsFull) {
  Problem p;
  p.seq = 1;
  p.seq_kv = 9;
  p.mask = Mask::rows({{{{0, 2}, {4, 9}}}});
  const std::vector<TokenRange> rows{{0, 1, 1}};
  const RowTable table(compile_bands(resolved(p)), rows);
  std::vector<Tile> tiles;
  table.tiles({64, 64}, 0, {0, 3, 4}, tiles);
  ASSERT_EQ(tiles.size(), 1U);
  EXPECT_TRUE(tiles[0].full);
}

TEST(RowTable, GivesTheIntervalsOfItsRowsInOrder) {
  for (std::uint64_t seed = 0; seed < kCases; ++seed) {
    Case c(seed, true);
    SCOPED_TRACE(fmt::format("seed {}: {}", seed, c.words()));
    const BruteMask brute(c.problem);
    const std::vector<RowIntervals> rows = RowTable(compile_bands(c.problem), c.ranges).intervals();
    ASSERT_EQ(rows.size(), c.queries.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      std::vector<KeyInterval> runs = brute.runs(c.queries[i]);
      runs.resize(2);
      ASSERT_EQ(rows[i], (RowIntervals{runs[0], runs[1]}));
    }
  }
}

}  // namespace
}  // namespace annulus::attn
