// The order in which the Hopper forward draws items: sections of heads (setup.h), on the host.
// Compiled with cuda_shim.h before it.
#include "attention/kernels/sm90/schedule.cuh"
#include "attention/kernels/sm90/setup.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <tuple>
#include <vector>

namespace annulus::testing {
namespace {

using attn::sm90::QueryTile;
using attn::sm90::Schedule;

struct Launch {
  std::vector<std::int32_t> row_tiles;
  std::vector<attn::Tile> tiles;
  std::vector<QueryTile> order;
  attn::AttendGeometry geometry;

  Launch(std::int64_t count, std::int64_t heads, std::int64_t batch, std::int64_t keys)
      : row_tiles(static_cast<std::size_t>(count) + 1), tiles(static_cast<std::size_t>(count)) {
    geometry.batch = batch;
    geometry.heads = heads;
    geometry.group = 1;
    geometry.head_dim = geometry.head_dim_v = 128;
    geometry.key_tokens = keys;
    geometry.tiles = tiles;
    geometry.row_tiles = row_tiles;
    for (int i = 0; i < count; ++i) order.push_back({i, 1, i, i + 1, 1, 0, 0, 0});
  }

  Schedule schedule(int blocks) {
    const attn::sm90::Sections sections = attn::sm90::sections_of(geometry, blocks);
    return {.drawn = nullptr,
            .tiles = order.data(),
            .all = static_cast<std::int32_t>(attn::sm90::items_of(geometry)),
            .head_count = sections.heads,
            .section = sections.size,
            .sections = sections.count};
  }
};

TEST(Sections, EachItemIsDrawnOnce) {
  for (const int blocks : {1, 7, 132}) {
    for (const std::int64_t count : {1, 3, 16, 129}) {
      for (const std::int64_t heads : {1, 5, 32}) {
        for (const std::int64_t batch : {1, 4, 9}) {
          for (const std::int64_t keys : {100, 4096, 131072}) {
            SCOPED_TRACE("blocks " + std::to_string(blocks) + " tiles " + std::to_string(count) +
                         " heads " + std::to_string(heads) + " batch " + std::to_string(batch) +
                         " keys " + std::to_string(keys));
            Launch launch(count, heads, batch, keys);
            const Schedule schedule = launch.schedule(blocks);
            const auto g = attn::cuda::geometry_of(launch.geometry, {});
            std::set<std::tuple<int, int, int>> seen;
            for (int i = 0; i < schedule.all; ++i) {
              const attn::sm90::Item item = attn::sm90::item_of(g, schedule, i);
              ASSERT_TRUE(seen.emplace(item.tile.row, item.head, item.batch).second) << i;
              ASSERT_TRUE(item.tile.row < count && item.head < heads && item.batch < batch) << i;
            }
            ASSERT_EQ(static_cast<std::int64_t>(seen.size()), count * heads * batch);
          }
        }
      }
    }
  }
}

/// As many heads as blocks compute at once, and some waves of them at the end.
TEST(Sections, AreWavesOfHeads) {
  const auto sections = [](std::int64_t count, std::int64_t heads, std::int64_t keys) {
    return attn::sm90::sections_of(Launch(count, heads, 1, keys).geometry, 132);
  };
  EXPECT_EQ(sections(4, 512, 512).size, 33);   // 33 heads of 4 tiles
  EXPECT_EQ(sections(4, 512, 512).count, 12);  // the last one has 149: four waves and 17
  EXPECT_EQ(sections(16, 128, 2048).size, 9);
  EXPECT_EQ(sections(4, 100, 512).count, 1);  // not more than four waves
  // Keys and values of a head have 8 MB: four fill a section, two are all that blocks take at once.
  EXPECT_EQ(sections(128, 16, 16384).size, 2);
  EXPECT_EQ(sections(128, 16, 16384).count, 7);
  EXPECT_EQ(sections(1024, 16, 131072).size, 1);
  EXPECT_EQ(sections(1024, 16, 131072).count, 16);
}

}  // namespace
}  // namespace annulus::testing
