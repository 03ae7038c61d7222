// The index over a tile list that parallel kernels read.
#include "attention/kernels/tile_index.h"

#include <annulus/error.h>

#include <gmock/gmock.h>

#include <algorithm>
#include <vector>

namespace annulus::testing {
namespace {

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

TEST(TileIndex, FindsQueryTilesAndKeyTiles) {
  const TileIndex index = make_tile_index(causal_tiles());
  EXPECT_THAT(index.row_tiles, ElementsAre(0, 1, 3, 6));
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

}  // namespace
}  // namespace annulus::testing
