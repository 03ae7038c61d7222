// The index over a tile list that parallel kernels read.
#include "attention/kernels/tile_index.h"

#include <annulus/error.h>

#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <set>
#include <span>
#include <tuple>
#include <vector>

namespace annulus::testing {
namespace {

using attn::disjoint_key_tiles;
using attn::make_tile_index;
using attn::Tile;
using attn::TileIndex;
using ::testing::ElementsAre;

/// Causal over 3 x 3 tiles of 128: (row, segment, rows, keys, key, full).
std::vector<Tile> causal_tiles() {
  std::vector<Tile> tiles;
  for (std::int32_t row = 0; row < 3; ++row) {
    for (std::int32_t key = 0; key <= row; ++key) {
      tiles.push_back({128 * row, 128, 0, 128, 128 * key, key < row});
    }
  }
  return tiles;
}

using Pairs = std::set<std::tuple<std::int64_t, std::int32_t, std::int64_t>>;

/// (row, segment, key) of all tiles; a pair that stands twice is a failure.
Pairs pairs_in(const std::vector<Tile>& tiles) {
  Pairs pairs;
  for (const Tile& t : tiles) {
    for (std::int32_t r = 0; r < t.rows; ++r) {
      for (std::int64_t k = 0; k < t.keys; ++k) {
        EXPECT_TRUE(pairs.emplace(t.row + r, t.segment, t.key + k).second);
      }
    }
  }
  return pairs;
}

TEST(TileIndex, TilesThatAreCutToKeysShareWholeKeyTiles) {
  std::mt19937 random(7);
  const auto upto = [&](int n) {
    return static_cast<std::int32_t>(random() % static_cast<unsigned>(n));
  };
  for (int repeat = 0; repeat < 200; ++repeat) {
    std::vector<Tile> tiles;
    for (std::int32_t row = 0; row < 12; row += 3) {
      for (std::int32_t segment = 0; segment < 2; ++segment) {
        for (std::int64_t key = upto(9); key < 40;) {
          const std::int32_t keys = 1 + upto(11);
          tiles.push_back({row, 1 + upto(3), segment, keys, key, upto(2) == 0});
          key += keys + upto(6);
        }
      }
    }
    const std::vector<Tile> cut = disjoint_key_tiles(tiles);
    EXPECT_EQ(pairs_in(cut), pairs_in(tiles)) << "repeat " << repeat << ", seed 7";
    std::set<std::pair<std::int32_t, std::int64_t>> begins;
    for (const Tile& t : tiles) begins.emplace(t.segment, t.key);
    EXPECT_EQ(make_tile_index(cut).key_tiles.size(), begins.size() + 1);
  }
  const std::vector<Tile> grid = causal_tiles();
  const std::vector<Tile> same = disjoint_key_tiles(grid);
  EXPECT_EQ(same.size(), grid.size());
  EXPECT_EQ(make_tile_index(same).key_tiles, make_tile_index(grid).key_tiles);
}

TEST(TileIndex, CountsRowsThatTilesHave) {
  // Tiles of a query tile differ in rows: the tallest counts. Rows 5 to 7 and 20 are nobody's.
  const std::vector<Tile> tiles = {
      {0, 3, 0, 8, 0, true}, {0, 5, 1, 8, 0, true}, {8, 12, 0, 8, 0, true}};
  EXPECT_EQ(make_tile_index(tiles).covered_rows, 17);
  EXPECT_EQ(join_tiles(tiles, make_tile_index(tiles)).index.covered_rows, 17);
  EXPECT_EQ(make_tile_index({}).covered_rows, 0);
}

TEST(TileIndex, FindsQueryTilesAndKeyTiles) {
  const TileIndex index = make_tile_index(causal_tiles());
  EXPECT_THAT(index.row_tiles, ElementsAre(0, 1, 3, 6));
  EXPECT_EQ(index.covered_rows, 384);
  EXPECT_THAT(index.key_tiles, ElementsAre(0, 3, 5, 6));
  std::vector<std::int32_t> rows;
  for (const Tile& tile : index.tiles_by_key) rows.push_back(tile.row);
  EXPECT_THAT(rows, ElementsAre(0, 128, 256, 128, 256, 256));
}

TEST(TileIndex, LetsLaterKeysGoFirst) {
  const TileIndex index = make_tile_index(causal_tiles());
  std::vector<std::int32_t> row_tiles, turns;
  for (const attn::TilePlace& place : index.places) {
    row_tiles.push_back(place.row_tile);
    turns.push_back(place.turn);
  }
  EXPECT_THAT(row_tiles, ElementsAre(0, 1, 2, 1, 2, 2));
  EXPECT_THAT(turns, ElementsAre(0, 1, 2, 0, 1, 0));
}

TEST(TileIndex, GivesATileThatIsListedTwiceTwoTurnsInItsOwnOrder) {
  std::vector<Tile> tiles = causal_tiles();
  tiles.insert(tiles.begin() + 2, tiles[1]);
  const TileIndex index = make_tile_index(tiles);
  EXPECT_THAT(index.row_tiles, ElementsAre(0, 1, 4, 7));
  EXPECT_THAT(index.key_tiles, ElementsAre(0, 4, 6, 7));
  EXPECT_EQ(index.places[1].turn, 1);
  EXPECT_EQ(index.places[2].turn, 2);
}

TEST(TileIndex, IsEmptyWithoutTiles) {
  const TileIndex index = make_tile_index({});
  EXPECT_THAT(index.row_tiles, ElementsAre(0));
  EXPECT_THAT(index.key_tiles, ElementsAre(0));
  EXPECT_TRUE(index.places.empty());
}

TEST(TileIndex, RefusesTilesThatOverlapOrAreNotSortedOrAreTooLarge) {
  std::vector<Tile> tiles = causal_tiles();
  EXPECT_THROW(make_tile_index(tiles, {.rows = 64}), InvalidArgument);
  EXPECT_THROW(make_tile_index(tiles, {.keys = 100}), InvalidArgument);
  std::swap(tiles[0], tiles[3]);
  EXPECT_THROW(make_tile_index(tiles), InvalidArgument);
  tiles = causal_tiles();
  tiles[0].rows = 129;
  EXPECT_THROW(make_tile_index(tiles, {.rows = 256}), InvalidArgument);
  tiles = causal_tiles();
  tiles.back().key = 200;
  EXPECT_THROW(make_tile_index(tiles), InvalidArgument);
}

/// Pieces of 32 x 32 of a tile list, in its order: (row, segment, key, full).
using Piece = std::tuple<std::int64_t, std::int64_t, std::int64_t, bool>;
std::vector<Piece> pieces(std::span<const Tile> tiles, std::int32_t begin, std::int32_t end) {
  std::vector<Piece> out;
  for (std::int32_t i = begin; i < end; ++i) {
    const Tile& t = tiles[static_cast<std::size_t>(i)];
    for (std::int64_t r = 0; r < t.rows; r += 32) {
      for (std::int64_t k = 0; k < t.keys; k += 32) {
        out.emplace_back(t.row + r, t.segment, t.key + k, t.full);
      }
    }
  }
  return out;
}

/// Sorted: a row's tiles are walked key by key, a key's row by row, whatever the tiles are.
void expect_same_pieces(std::span<const Tile> a, const std::vector<std::int32_t>& a_begins,
                        std::span<const Tile> b, const std::vector<std::int32_t>& b_begins) {
  ASSERT_EQ(a_begins.size(), b_begins.size());
  for (std::size_t i = 0; i + 1 < a_begins.size(); ++i) {
    std::vector<Piece> x = pieces(a, a_begins[i], a_begins[i + 1]);
    std::vector<Piece> y = pieces(b, b_begins[i], b_begins[i + 1]);
    std::sort(x.begin(), x.end());
    std::sort(y.begin(), y.end());
    EXPECT_EQ(x, y) << "list " << i;
  }
}

/// Random sets of tiles of 64 x 32 over several segments.
std::vector<Tile> random_tiles(std::mt19937& engine) {
  std::vector<Tile> tiles;
  const auto chance = [&](unsigned of_ten) { return engine() % 10 < of_ten; };
  for (std::int32_t row = 0; row < 8; ++row) {
    for (std::int32_t segment = 0; segment < 3; ++segment) {
      for (std::int64_t key = 0; key < 6; ++key) {
        if (chance(3)) continue;
        tiles.push_back({64 * row, 64, segment, 32, 32 * key, chance(7)});
      }
    }
  }
  return tiles;
}

TEST(JoinedTiles, HoldTheSamePairsInTheSameLists) {
  std::mt19937 engine(5);
  for (int round = 0; round < 50; ++round) {
    SCOPED_TRACE(round);
    const std::vector<Tile> tiles = random_tiles(engine);
    const TileIndex index = make_tile_index(tiles);
    const attn::JoinedTiles joined = attn::join_tiles(tiles, index);
    expect_same_pieces(tiles, index.row_tiles, joined.tiles, joined.index.row_tiles);
    expect_same_pieces(index.tiles_by_key, index.key_tiles, joined.index.tiles_by_key,
                       joined.index.key_tiles);
  }
}

TEST(JoinedTiles, GrowWithTheSequenceAndNotWithItsSquare) {
  std::vector<Tile> tiles;  // causal
  for (std::int32_t row = 0; row < 100; ++row) {
    for (std::int32_t key = 0; key <= row; ++key) {
      tiles.push_back({128 * row, 128, 0, 128, 128 * key, key < row});
    }
  }
  const attn::JoinedTiles joined = attn::join_tiles(tiles, make_tile_index(tiles));
  EXPECT_EQ(joined.tiles.size(), 199U);
  EXPECT_EQ(joined.index.tiles_by_key.size(), 199U);
  EXPECT_EQ(joined.tiles[1].keys, 128);
  EXPECT_EQ(joined.tiles[3].keys, 2 * 128);  // row 2: two full ones, then the diagonal
  EXPECT_TRUE(joined.index.places.empty());
}

TEST(JoinedTiles, KeepKindsSegmentsAndGapsApart) {
  const std::vector<Tile> tiles{{0, 64, 0, 32, 0, true},    {0, 64, 0, 32, 32, true},
                                {0, 64, 0, 32, 64, false},  {0, 64, 0, 32, 128, false},
                                {0, 64, 1, 32, 160, false}, {0, 64, 1, 32, 192, false}};
  const attn::JoinedTiles joined = attn::join_tiles(tiles, make_tile_index(tiles));
  std::vector<std::array<std::int64_t, 3>> found;
  for (const Tile& t : joined.tiles) found.push_back({t.segment, t.key, t.keys});
  EXPECT_THAT(found, ElementsAre(std::array<std::int64_t, 3>{0, 0, 64},
                                 std::array<std::int64_t, 3>{0, 64, 32},
                                 std::array<std::int64_t, 3>{0, 128, 32},
                                 std::array<std::int64_t, 3>{1, 160, 64}));
}

TEST(JoinedTiles, AreNoneOfNone) {
  const attn::JoinedTiles joined = attn::join_tiles({}, make_tile_index({}));
  EXPECT_TRUE(joined.tiles.empty());
  EXPECT_THAT(joined.index.row_tiles, ElementsAre(0));
  EXPECT_THAT(joined.index.key_tiles, ElementsAre(0));
}

}  // namespace
}  // namespace annulus::testing
