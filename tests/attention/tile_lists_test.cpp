// What GPUs keep of tiles: lists that grow with the sequence, not with its square.

#include "attention/execute/launches.h"

#include <annulus/error.h>
#include <annulus/plan.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

namespace annulus {
namespace {

/// A kernel as those of GPUs are: their index, and joined tiles.
attn::Kernel device_kernel() {
  attn::Kernel kernel;
  kernel.name = "flash2";
  kernel.backend = "cuda";
  kernel.tile_q = kernel.tile_k = 128;
  kernel.joined_tiles = true;
  return kernel;
}

PlanRequest request(Algorithm algorithm, const Layout& layout, Pass pass, std::int64_t seq) {
  Problem problem{.seq = seq, .heads = 8, .heads_kv = 8, .head_dim = 128, .dtype = DType::bf16};
  const MeshShape mesh = algorithm == Algorithm::ulysses ? MeshShape{.ring = 1, .ulysses = 4}
                                                         : MeshShape{.ring = 4, .ulysses = 1};
  PlanRequest r{problem, layout, algorithm, mesh, pass, {}};
  r.options.stage_caller = true;
  r.options.tile_q = r.options.tile_k = 128;
  return r;
}

/// Entries of the tile lists of one rank, and pairs of a head that they hold.
struct Lists {
  std::size_t tiles = 0;
  std::int64_t pairs = 0;
};

Lists lists_of(const PlanRequest& r, bool deterministic) {
  const Plan plan = make_plan(r);
  const RankPlan rank = plan.rank(1);
  const attn::Kernel kernel = device_kernel();
  const attn::Launches launches(plan, rank, kernel, deterministic);
  Lists lists;
  for (const attn::Launch& launch : launches.launches()) {
    const auto& list = r.pass == Pass::forward ? launch.tiles : launch.index.tiles_by_key;
    lists.tiles += list.size();
    for (const attn::Tile& t : list) lists.pairs += std::int64_t{t.rows} * t.keys;
  }
  return lists;
}

TEST(TileLists, GrowWithTheSequence) {
  for (const Algorithm algorithm : {Algorithm::ring, Algorithm::gather, Algorithm::ulysses}) {
    for (const Layout& layout : {Layout::zigzag(), Layout::striped()}) {
      for (const Pass pass : {Pass::forward, Pass::backward}) {
        SCOPED_TRACE(fmt::format("{} {} {}", name_of(algorithm), layout.name(), name_of(pass)));
        const Lists small = lists_of(request(algorithm, layout, pass, 16384), false);
        const Lists large = lists_of(request(algorithm, layout, pass, 65536), false);
        EXPECT_GT(small.tiles, 0U);
        EXPECT_LT(large.tiles, 5 * small.tiles);  // single tiles: 16 times
        // What is counted stays what it was.
        const Lists single = lists_of(request(algorithm, layout, pass, 16384), true);
        EXPECT_EQ(small.pairs, single.pairs);
      }
    }
  }
}

TEST(TileLists, StaySingleWhereBackwardTakesTurns) {
  const PlanRequest r = request(Algorithm::ulysses, Layout::zigzag(), Pass::backward, 16384);
  EXPECT_GT(lists_of(r, true).tiles, 16 * lists_of(r, false).tiles);
}

TEST(TileLists, AreSharedByAttendsOfTheSameRowsAndKeys) {
  const attn::Kernel kernel = device_kernel();
  PlanRequest r = request(Algorithm::ulysses, Layout::zigzag(), Pass::forward, 16384);
  r.options.ulysses_slices = 3;
  const Plan plan = make_plan(r);
  const RankPlan rank = plan.rank(1);
  ASSERT_GT(rank.attends.size(), 1U);
  const attn::Launches launches(plan, rank, kernel, false);
  EXPECT_EQ(launches.launches().size(), 1U);
  for (std::size_t i = 0; i < rank.attends.size(); ++i) {
    const auto index = static_cast<std::int32_t>(i);
    EXPECT_EQ(launches.first_with_lists_of(index), 0);
    const attn::AttendGeometry g = launches.geometry(index);
    EXPECT_EQ(g.tiles.data(), launches.launch(0).tiles.data());
    EXPECT_EQ(g.heads, rank.attends[i].heads);
  }
  // Keys of other steps are others.
  const Plan ring = make_plan(request(Algorithm::ring, Layout::zigzag(), Pass::forward, 16384));
  const RankPlan ring_rank = ring.rank(1);
  const attn::Launches steps(ring, ring_rank, kernel, false);
  ASSERT_EQ(steps.launches().size(), ring_rank.attends.size());
  EXPECT_EQ(steps.first_with_lists_of(1), 1);
}

/// Tiles of 192 rows are for the forward alone.
TEST(TileLists, AreHeldToTheLimitsOfTheirPass) {
  attn::Kernel kernel = device_kernel();
  kernel.tiles = [](const attn::KernelQuery& query) {
    return attn::TileLimits{query.backward || query.softcap ? 128 : 192, 128};
  };
  PlanRequest r = request(Algorithm::ring, Layout::zigzag(), Pass::forward, 16384);
  r.options.tile_q = 192;
  const auto tallest = [&] {
    const Plan plan = make_plan(r);
    const RankPlan rank = plan.rank(1);
    const attn::Launches launches(plan, rank, kernel, false);
    std::int32_t rows = 0;
    for (const attn::Launch& launch : launches.launches()) {
      for (const attn::Tile& t : launch.tiles) rows = std::max(rows, t.rows);
    }
    return rows;
  };
  EXPECT_EQ(tallest(), 192);
  r.problem.softcap = 5.0;
  EXPECT_THROW(tallest(), InvalidArgument);
  r.problem.softcap = 0.0;
  r.pass = Pass::backward;
  EXPECT_THROW(tallest(), InvalidArgument);
}

}  // namespace
}  // namespace annulus
