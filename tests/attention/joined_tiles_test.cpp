// Joined tile lists that are made at once, against joined lists of single tiles; and what four
// million tokens cost at bind.

#include "attention/execute/joined_tiles.h"
#include "attention/execute/launches.h"
#include "tests/attention/random_request.h"

#include <annulus/error.h>
#include <annulus/plan.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace annulus::attn {
namespace {

using test::Random;

constexpr TileLimits kAnySize{1 << 20, 1 << 20};

JoinedTiles from_single_tiles(const RowTable& table, const TileGrid& grid,
                              const std::vector<TokenRange>& keys) {
  std::vector<Tile> tiles;
  for (std::size_t s = 0; s < keys.size(); ++s) {
    table.tiles(grid, static_cast<std::int32_t>(s), keys[s], tiles);
  }
  std::stable_sort(tiles.begin(), tiles.end(),
                   [](const Tile& a, const Tile& b) { return a.row < b.row; });
  return join_tiles(tiles, make_tile_index(tiles, kAnySize));
}

std::string words(const std::vector<Tile>& tiles) {
  std::string text;
  for (const Tile& t : tiles) {
    text += fmt::format("{}+{} {}:{}+{} {}\n", t.row, t.rows, t.segment, t.key, t.keys, t.full);
  }
  return text;
}

TEST(JoinedTiles, AreThoseOfSingleTiles) {
  int compared = 0;
  std::size_t joined = 0;
  for (std::uint64_t seed = 1; seed <= 3000; ++seed) {
    Random random(seed);
    const Problem problem = test::random_problem(random, 90, 2);
    const std::vector<Shard> shards = test::random_shards(random, problem.seq, 3);
    const auto bands = compile_bands(problem);
    const RowTable table(bands, shards[0]);
    if (table.cut_to_keys()) continue;
    // Keys of all shards, of which some have none.
    std::vector<TokenRange> keys;
    for (const Shard& shard : shards) {
      for (const TokenRange& range : shard) keys.push_back(range);
    }
    if (random.one_in(2)) {
      keys.push_back({random.between(0, 40), random.between(0, 20), random.between(1, 5)});
    }
    const TileGrid grid{random.any_of<std::int64_t>({1, 2, 5, 8, 64}),
                        random.any_of<std::int64_t>({1, 2, 5, 8, 64})};
    SCOPED_TRACE(fmt::format("seed {} mask {} grid {}x{}", seed, problem.mask.name(), grid.tile_q,
                             grid.tile_k));
    const JoinedTiles one = from_single_tiles(table, grid, keys);
    const JoinedTiles other = joined_tiles(table, grid, keys, kAnySize);
    ASSERT_EQ(words(other.tiles), words(one.tiles));
    ASSERT_EQ(words(other.index.tiles_by_key), words(one.index.tiles_by_key));
    ASSERT_EQ(other.index.row_tiles, one.index.row_tiles);
    ASSERT_EQ(other.index.key_tiles, one.index.key_tiles);
    ASSERT_EQ(other.index.covered_rows, one.index.covered_rows);
    ASSERT_TRUE(other.index.places.empty());
    ++compared;
    joined += one.tiles.size();
  }
  EXPECT_GT(compared, 1000);
  EXPECT_GT(joined, 10000U);
}

TEST(JoinedTiles, AreHeldToTheLimits) {
  const Problem problem =
      resolved({.seq = 256, .heads = 1, .head_dim = 16, .mask = Mask::causal()});
  const std::vector<TokenRange> all{{0, 256, 1}};
  const RowTable table(compile_bands(problem), all);
  EXPECT_NO_THROW(joined_tiles(table, {64, 128}, all, {64, 128}));
  EXPECT_THROW(joined_tiles(table, {128, 128}, all, {64, 128}), InvalidArgument);
  EXPECT_THROW(joined_tiles(table, {64, 128}, all, {64, 64}), InvalidArgument);
}

/// Anonymous memory that a call may add: lists and rows' intervals.
double peak_mib() {
  std::ifstream status("/proc/self/status");
  std::string word;
  double kib = 0.0;
  while (status >> word) {
    if (word == "VmHWM:") status >> kib;
  }
  return kib / 1024.0;
}

/// Eight ranks, causal, zigzag. Single tiles: 67 million a rank of ring, 537 million of ulysses.
TEST(JoinedTiles, FourMillionTokensAreBoundAtOnce) {
  Kernel kernel;
  kernel.name = "hopper";
  kernel.backend = "cuda";
  kernel.tile_q = kernel.tile_k = 128;
  kernel.joined_tiles = true;
  for (const Algorithm algorithm : {Algorithm::ring, Algorithm::gather, Algorithm::ulysses}) {
    for (const Pass pass : {Pass::forward, Pass::backward}) {
      const bool heads = algorithm == Algorithm::ulysses;
      PlanRequest r{{.seq = std::int64_t{1} << 22,
                     .heads = 32,
                     .heads_kv = 8,
                     .head_dim = 128,
                     .dtype = DType::bf16,
                     .mask = Mask::causal()},
                    Layout::zigzag(),
                    algorithm,
                    heads ? MeshShape{.ring = 1, .ulysses = 8} : MeshShape{.ring = 8, .ulysses = 1},
                    pass,
                    {}};
      r.options.stage_caller = true;
      r.options.tile_q = r.options.tile_k = 128;
      const auto start = std::chrono::steady_clock::now();
      const Plan plan = make_plan(r);
      const RankPlan rank = plan.rank(0);
      const Launches launches(plan, rank, kernel, false);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      std::size_t tiles = 0;
      std::size_t most = 0;
      std::int64_t pairs = 0;
      std::int64_t by_key = 0;
      for (const Launch& launch : launches.launches()) {
        tiles += launch.tiles.size() + launch.index.tiles_by_key.size();
        // A run of whole tiles a segment and a diagonal tile; the same by key, where zigzag's rows
        // are two runs. Both ends of a launch's lists are counted.
        most += launch.index.row_tiles.size() * (launch.keys.size() + 1) +
                4 * launch.index.key_tiles.size();
        for (const Tile& t : launch.tiles) pairs += std::int64_t{t.rows} * t.keys;
        for (const Tile& t : launch.index.tiles_by_key) by_key += std::int64_t{t.rows} * t.keys;
      }
      fmt::print("4M tokens, 8 ranks, {} {}: {:.2f} s, {} tiles, peak {:.0f} MiB\n",
                 name_of(algorithm), name_of(pass), took.count(), tiles, peak_mib());
      EXPECT_LT(took.count(), 5.0);
      EXPECT_LE(tiles, most);
      EXPECT_EQ(pairs, by_key);
      // An eighth of the causal pairs, and half of each diagonal tile.
      const double own = 0.5 * static_cast<double>(r.problem.seq) *
                         static_cast<double>(r.problem.seq) / (heads ? 1 : 8);
      EXPECT_NEAR(static_cast<double>(pairs) / own, 1.0, 1e-3);
    }
  }
  EXPECT_LT(peak_mib(), 1024.0);
}

}  // namespace
}  // namespace annulus::attn
