// How launches of the Hopper forward are split over keys: arithmetic of the host.
#include "attention/kernels/sm90/setup.h"
#include "attention/kernels/sm90/split.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace annulus::testing {
namespace {

using attn::AttendGeometry;
using attn::sm90::Split;

constexpr std::int64_t kRoom = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t k128Steps = 820;  ///< of 160 keys, in 128k

/// Query tiles of 128 rows; lists are not looked at.
struct Launch {
  std::vector<std::int32_t> row_tiles;
  std::vector<attn::Tile> tiles;
  AttendGeometry geometry;

  Launch(std::int64_t batch, std::int64_t rows, std::int64_t heads, std::int64_t heads_kv,
         std::int64_t keys)
      : row_tiles(static_cast<std::size_t>((rows + 127) / 128 + 1), 0),
        tiles(row_tiles.size() - 1) {
    geometry = {.batch = batch,
                .heads = heads,
                .group = heads / heads_kv,
                .head_dim = 128,
                .head_dim_v = 128,
                .sequence_keys = keys,
                .sequence_rows = rows,
                .all_heads = heads * batch,
                .rows = rows,
                .queries = {},
                .keys = {},
                .tiles = tiles,
                .intervals = {},
                .row_tiles = row_tiles,
                .key_tokens = keys};
  }
  Split split(int sms = 132, std::int64_t room = kRoom, bool deterministic = false) const {
    return attn::sm90::split_of(geometry, 160, sms, room, deterministic);
  }
};

TEST(Split, ItemsThatFillTheDeviceStayWhole) {
  for (const std::int64_t items : {90, 100, 131, 132, 133, 264, 5000}) {
    EXPECT_EQ(attn::sm90::split_for(items, k128Steps, 132, 1), Split{}) << items;
  }
  EXPECT_EQ(Launch(8, 8192, 16, 16, 8192).split(), Split{});
}

TEST(Split, FewItemsFillItOnce) {
  EXPECT_EQ(attn::sm90::split_for(66, k128Steps, 132, 1), (Split{2, 1}));
  EXPECT_EQ(attn::sm90::split_for(32, k128Steps, 132, 1), (Split{4, 1}));
  EXPECT_EQ(attn::sm90::split_for(44, k128Steps, 132, 1), (Split{3, 1}));
  EXPECT_EQ(attn::sm90::split_for(1, k128Steps, 132, 1), (Split{64, 1}));
  EXPECT_EQ(attn::sm90::split_for(67, k128Steps, 132, 1), (Split{3, 1}));  // two thirds, twice
  EXPECT_EQ(attn::sm90::split_for(32, k128Steps, 16, 1), Split{});         // fewer SMs
  // 512 rows of 8 heads: 32 query tiles.
  EXPECT_EQ(Launch(1, 512, 8, 8, 131072).split(), (Split{4, 1}));
}

TEST(Split, PartsAreNotShort) {
  EXPECT_EQ(attn::sm90::split_for(1, 8, 132, 1), Split{});  // the merge costs what it saves
  EXPECT_EQ(attn::sm90::split_for(1, 12, 132, 1), (Split{3, 1}));
  for (std::int64_t items = 1; items < 300; items += 7) {
    for (std::int64_t steps = 1; steps < 300; steps += 3) {
      for (const int sms : {1, 8, 78, 132}) {
        for (const std::int64_t group : {1, 4}) {
          const Split split = attn::sm90::split_for(items * group, steps, sms, group);
          EXPECT_TRUE(split.parts == 1 || split.parts * 4 <= steps);
          EXPECT_TRUE(split.parts == 1 || items * group / split.group * split.parts <= 2 * sms);
          EXPECT_LE(split.parts, 64);
          EXPECT_TRUE(split.group == 1 || split.group == group);
        }
      }
    }
  }
}

TEST(Split, HeadsArePackedWhereItHelps) {
  EXPECT_EQ(Launch(1, 1, 32, 8, 131072).split(), (Split{16, 4}));
  EXPECT_EQ(Launch(8, 1, 32, 8, 131072).split(), (Split{2, 4}));
  EXPECT_EQ(Launch(64, 1, 32, 8, 131072).split(), (Split{1, 4}));
  EXPECT_EQ(Launch(1, 16, 32, 8, 131072).split(), (Split{16, 4}));
  EXPECT_EQ(Launch(1, 33, 32, 8, 131072).split(), (Split{4, 1}));  // too many rows for a tile
  EXPECT_EQ(Launch(1, 1, 32, 8, 500).split(), Split{});            // the copies cost more
  Launch within_group(1, 1, 32, 8, 131072);
  within_group.geometry.head_offset = 2;
  EXPECT_EQ(within_group.split(), (Split{4, 1}));
  within_group.geometry.head_offset = 4;
  EXPECT_EQ(within_group.split(), (Split{16, 4}));
}

Split fixed(const AttendGeometry& g, int sms = 132, std::int64_t room = kRoom) {
  return attn::sm90::split_of(g, 160, sms, room, true);
}

/// 26 steps of 160 keys, 32 times; or at least four steps.
TEST(Split, PartsOfASequenceFollowFromItsKeys) {
  const auto of = [](std::int64_t batch, std::int64_t rows, std::int64_t heads,
                     std::int64_t heads_kv, std::int64_t keys) {
    return attn::sm90::split_of_sequence(Launch(batch, rows, heads, heads_kv, keys).geometry, 160);
  };
  for (const std::int64_t batch : {1, 3}) {
    for (const std::int64_t rows : {1, 5, 16}) {
      EXPECT_EQ(of(batch, rows, 32, 8, 131072), (Split{32, 1, 26 * 160}));
      EXPECT_EQ(of(batch, rows, 8, 8, 131072), (Split{32, 1, 26 * 160}));
      EXPECT_EQ(of(batch, rows, 8, 1, 8192), (Split{13, 1, 4 * 160}));
    }
  }
  EXPECT_EQ(of(1, 512, 8, 8, 131072), (Split{32, 1, 26 * 160}));
  // Too few keys, enough to do without, states of 140 MB.
  EXPECT_EQ(of(1, 1, 32, 8, 1000), Split{});
  EXPECT_EQ(of(1, 8192, 16, 16, 8192), Split{});
  EXPECT_EQ(of(1, 2048, 8, 8, 2048), Split{});
  EXPECT_EQ(of(64, 1, 32, 8, 131072), Split{});
  EXPECT_EQ(of(1, 128, 64, 64, 131072), Split{});
}

/// A rank's share of rows, heads and keys, its device and its workspace change nothing but which
/// heads are packed.
TEST(Split, RanksSplitAlike) {
  const Launch whole(2, 5, 32, 8, 131072);
  EXPECT_EQ(fixed(whole.geometry), (Split{32, 4, 26 * 160}));
  EXPECT_EQ(fixed(whole.geometry, 132, 0), (Split{32, 1, 26 * 160}));
  for (const int sms : {1, 16, 78, 132, 144}) {
    for (const std::int64_t rows : {1, 3, 5}) {
      for (const std::int64_t heads : {2, 4, 16, 32}) {
        Launch part(2, rows, heads, heads < 8 ? 1 : heads / 4, 16000);
        part.geometry.sequence_keys = 131072;
        part.geometry.sequence_rows = 5;
        part.geometry.all_heads = 64;
        const Split split = fixed(part.geometry, sms);
        EXPECT_EQ(split.parts, 32);
        EXPECT_EQ(split.keys, 26 * 160);
      }
    }
  }
}

/// Where it is enough to do it stays whole, however little of it a rank has.
TEST(Split, RanksOfALongSequenceStayWhole) {
  Launch part(1, 64, 2, 1, 8192);
  part.geometry.sequence_rows = 8192;
  part.geometry.all_heads = 16;
  EXPECT_GT(part.split().parts, 1);
  EXPECT_EQ(fixed(part.geometry), Split{});
}

TEST(Split, NothingIsSplitOfAnUnknownSequence) {
  AttendGeometry g = Launch(1, 1, 32, 8, 131072).geometry;
  for (std::int64_t* known : {&g.sequence_keys, &g.sequence_rows, &g.all_heads}) {
    const std::int64_t value = std::exchange(*known, 0);
    EXPECT_EQ(fixed(g), Split{});
    *known = value;
  }
  EXPECT_NE(fixed(g), Split{});
}

TEST(Split, TheWorkspaceBoundsIt) {
  const Launch launch(1, 512, 8, 8, 131072);
  const std::int64_t three = attn::sm90::split_bytes(launch.geometry, {3, 1});
  EXPECT_EQ(launch.split(132, three).parts, 3);
  EXPECT_EQ(launch.split(132, three - 1).parts, 2);
  EXPECT_EQ(launch.split(132, 0), Split{});
  const Launch packed(1, 1, 32, 8, 131072);
  const std::int64_t bytes = attn::sm90::split_bytes(packed.geometry, {16, 4});
  EXPECT_EQ(packed.split(132, bytes), (Split{16, 4}));
  EXPECT_EQ(packed.split(132, bytes - 1), (Split{4, 1}));
}

/// Places without a part look like the end of the schedule: none may stand before an item.
TEST(Split, AllPartsAreOneSection) {
  const Launch launch(1, 256, 8, 8, 131072);  // keys and values of one head fill a section
  const auto section = [&](const Split& split) {
    return attn::sm90::schedule_in(nullptr, launch.geometry, split, 132).section;
  };
  EXPECT_LT(section({1, 1}), 8);
  EXPECT_EQ(section({8, 1}), 8);
  const attn::sm90::Schedule schedule =
      attn::sm90::schedule_in(nullptr, Launch(3, 1, 32, 8, 131072).geometry, {5, 4}, 132);
  EXPECT_EQ(schedule.all, 5 * 8 * 3);
  EXPECT_EQ(schedule.head_count, 8 * 3);
}

/// What is asked for before query tiles are known is enough for them.
TEST(Split, WorkspaceIsAskedFor) {
  for (const std::int64_t batch : {1, 3, 64}) {
    for (const std::int64_t rows : {1, 5, 16, 100, 512, 2000}) {
      for (const std::int64_t heads : {1, 2, 8, 32}) {
        for (const std::int64_t keys : {1, 1000, 3000, 131072}) {
          const Launch launch(batch, rows, heads, heads < 8 ? 1 : heads / 4, keys);
          AttendGeometry unknown = launch.geometry;
          unknown.row_tiles = {};
          unknown.tiles = {};
          const std::int64_t bytes = attn::sm90::most_split_bytes(unknown, 160);
          for (const bool deterministic : {false, true}) {
            const Split split = launch.split(132, kRoom, deterministic);
            if (!split.merged()) continue;
            EXPECT_LE(attn::sm90::split_bytes(launch.geometry, split), bytes);
          }
        }
      }
    }
  }
  // Launches that fill any device ask for nothing, decode for little.
  EXPECT_EQ(attn::sm90::most_split_bytes(Launch(8, 8192, 16, 16, 8192).geometry, 160), 0);
  EXPECT_LT(attn::sm90::most_split_bytes(Launch(1, 1, 32, 8, 131072).geometry, 160), 1 << 20);
  // Fixed parts of a rank are its rows' alone.
  const Launch all(1, 512, 8, 8, 131072);
  Launch part(1, 64, 8, 8, 131072);
  part.geometry.sequence_rows = 512;
  EXPECT_LT(attn::sm90::most_split_bytes(all.geometry, 160), std::int64_t{72} << 20);
  EXPECT_LT(attn::sm90::most_split_bytes(part.geometry, 160), std::int64_t{10} << 20);
}

}  // namespace
}  // namespace annulus::testing
