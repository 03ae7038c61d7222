// Distributed against single rank against the float64 oracle: every algorithm, layout and mask.

#include "tests/engine/check.h"
#include "tests/support/each_world.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace annulus::testing {
namespace {

TEST(Distributed, MatchesSingleRankForEveryAlgorithmAndLayout) {
  Problem p{.batch = 2, .seq = 61, .heads = 5, .head_dim = 16};
  check(p, every_algorithm(), 11);
}

TEST(Distributed, MatchesSingleRankForGroupedHeadsInLowPrecision) {
  Problem p{.batch = 1,
            .seq = 83,
            .heads = 6,
            .heads_kv = 2,
            .head_dim = 24,
            .head_dim_v = 8,
            .dtype = DType::bf16};
  check(p, every_algorithm(), 12);
  p.dtype = DType::f16;
  check(p, every_algorithm(), 13);
}

TEST(Distributed, MatchesSingleRankAtTheWidthsOfTensorCores) {
  Problem p{
      .batch = 1, .seq = 307, .heads = 4, .heads_kv = 2, .head_dim = 128, .dtype = DType::bf16};
  std::vector<RunOptions> runs = every_algorithm();
  for (RunOptions& run : runs) {
    run.calls = 2;
    run.pad = 8;
  }
  check(p, runs, 14);
  p.head_dim = 64;
  p.dtype = DType::f16;
  p.mask = Mask::documents({100, 7, 200}) & Mask::window(90);
  check(p, runs, 15);
}

/// On Hopper GPUs forward and backward are different kernels then.
TEST(Distributed, MatchesSingleRankAtWidthsOfTheForwardAlone) {
  Problem p{.batch = 1,
            .seq = 307,
            .heads = 4,
            .heads_kv = 2,
            .head_dim = 192,
            .head_dim_v = 128,
            .dtype = DType::bf16};
  std::vector<RunOptions> runs = every_algorithm();
  for (RunOptions& run : runs) run.pad = 8;
  check(p, runs, 16);
  p.head_dim = 96;
  p.head_dim_v.reset();
  p.mask = Mask::documents({100, 7, 200}) & Mask::window(90);
  check(p, runs, 17);
}

TEST(Distributed, MatchesSingleRankForEveryMask) {
  std::uint64_t seed = 20;
  for (const Mask& mask : every_mask(61)) {
    Problem p{.batch = 1, .seq = 61, .heads = 4, .heads_kv = 2, .head_dim = 8, .mask = mask};
    check(p, every_algorithm(), seed++);
  }
}

/// The CPU has no tensor cores, and its masks are the test above.
TEST(Distributed, MatchesSingleRankForEveryMaskOnTensorCores) {
  if (test_place().backend != "cuda") GTEST_SKIP() << "not on a GPU";
  std::vector<RunOptions> runs = every_algorithm();
  for (RunOptions& run : runs) run.pad = 8;
  Problem p{
      .batch = 1, .seq = 307, .heads = 4, .heads_kv = 2, .head_dim = 128, .dtype = DType::bf16};
  std::uint64_t seed = 140;
  for (const Mask& mask : every_mask(p.seq)) {
    p.mask = mask;
    p.softcap = seed % 2 == 0 ? 0.0 : 5.0;
    check(p, runs, seed++);
  }
}

TEST(Distributed, MatchesSingleRankWhenKeysAreMoreOrFewerThanQueries) {
  std::uint64_t seed = 40;
  for (const auto& [seq, seq_kv] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {13, 64}, {64, 13}, {1, 9}, {9, 1}, {7, 0}, {3, 2}}) {
    for (const CausalAlign align : {CausalAlign::bottom_right, CausalAlign::top_left}) {
      Problem p{.batch = 1,
                .seq = seq,
                .seq_kv = seq_kv,
                .heads = 2,
                .head_dim = 8,
                .mask = Mask::causal(align)};
      check(p, every_algorithm(), seed++);
    }
  }
}

TEST(Distributed, AcceptsEmptySequences) {
  Problem p{.batch = 1, .seq = 0, .heads = 2, .head_dim = 8};
  check(p, every_algorithm(), 60);
  p.seq_kv = 5;
  check(p, every_algorithm(), 61);
}

TEST(Distributed, GivesRowsThatSeeNothingZeroAndNoNan) {
  // Half of the queries come before every key; one document sees nothing at all.
  Problem p{.batch = 1, .seq = 40, .seq_kv = 20, .heads = 2, .head_dim = 8};
  check(p, every_algorithm(), 70);
  std::vector<RowIntervals> rows(30);
  for (std::size_t i = 20; i < 25; ++i) rows[i] = {KeyInterval{0, 3}, KeyInterval{7, 11}};
  Problem q{.batch = 1, .seq = 30, .heads = 2, .head_dim = 8, .mask = Mask::rows(rows)};
  check(q, every_algorithm(), 71);
}

TEST(Distributed, ServesCallerGivenShards) {
  const std::vector<Shard> all{{{0, 10, 1}, {20, 11, 2}}, {}, {{10, 10, 1}, {21, 10, 2}}};
  Problem p{.batch = 1, .seq = 41, .heads = 2, .head_dim = 8};
  for (const Algorithm a : {Algorithm::ring, Algorithm::gather, Algorithm::ulysses}) {
    check_on({.ring = 3}, p, {{.algorithm = a, .layout = Layout::given(all)}}, 80);
  }
}

TEST(Distributed, ServesCallerGivenArenas) {
  std::vector<RunOptions> runs;
  for (const Algorithm a : {Algorithm::ring, Algorithm::gather, Algorithm::ulysses}) {
    runs.push_back({.algorithm = a, .caller_arena = true, .calls = 2});
  }
  Problem p{.batch = 2, .seq = 61, .heads = 6, .heads_kv = 2, .head_dim = 16};
  check(p, runs, 150);
  p.dtype = DType::bf16;
  check(p, runs, 151);
}

std::vector<RunOptions> every_hybrid() {
  std::vector<RunOptions> runs;
  for (const Algorithm outer : {Algorithm::ring, Algorithm::gather}) {
    for (const Layout& layout :
         {Layout::contiguous(), Layout::zigzag(), Layout::striped(), Layout::balanced()}) {
      runs.push_back({.algorithm = Algorithm::hybrid, .layout = layout, .outer = outer});
    }
  }
  return runs;
}

TEST(Distributed, MatchesSingleRankOnHybridMeshes) {
  const std::vector<RunOptions> runs = every_hybrid();
  std::uint64_t seed = 90;
  for (const MeshShape shape :
       {MeshShape{.ring = 2, .ulysses = 2}, MeshShape{.ring = 2, .ulysses = 4},
        MeshShape{.ring = 3, .ulysses = 2}, MeshShape{.ring = 2, .ulysses = 3}}) {
    Problem p{
        .batch = 2, .seq = 53, .heads = 5, .head_dim = 8, .mask = Mask::documents({20, 30, 3})};
    check_on(shape, p, runs, seed++);
    Problem grouped{
        .batch = 1, .seq = 53, .heads = 6, .heads_kv = 2, .head_dim = 8, .dtype = DType::bf16};
    check_on(shape, grouped, runs, seed++);
  }
}

TEST(Distributed, MatchesSingleRankForEveryMaskOnHybridMeshes) {
  std::uint64_t seed = 160;
  for (const Mask& mask : every_mask(61)) {
    Problem p{.batch = 1, .seq = 61, .heads = 4, .heads_kv = 2, .head_dim = 8, .mask = mask};
    for (const MeshShape shape :
         {MeshShape{.ring = 2, .ulysses = 2}, MeshShape{.ring = 4, .ulysses = 2}}) {
      check_on(shape, p, every_hybrid(), seed);
    }
    ++seed;
  }
}

TEST(Distributed, TakesHeadsInSlices) {
  std::vector<RunOptions> runs;
  for (const int slices : {2, 3, 8}) {
    for (const Layout& layout : {Layout::zigzag(), Layout::balanced()}) {
      runs.push_back({.algorithm = Algorithm::ulysses, .layout = layout, .ulysses_slices = slices});
      runs.back().calls = 2;
    }
  }
  // Slices of one key/value head, of several, and heads that no world divides.
  Problem p{.batch = 2, .seq = 61, .heads = 16, .heads_kv = 2, .head_dim = 8};
  check(p, runs, 120);
  p.heads_kv = 8;
  p.dtype = DType::bf16;
  check(p, runs, 121);
  p.heads = 7;
  p.heads_kv = 7;
  p.head_dim_v = 24;
  p.mask = Mask::documents({30, 0, 31}, false);
  check(p, runs, 122);
}

TEST(Distributed, GivesTheSameBitsInAnySlices) {
  const Problem p{
      .batch = 1, .seq = 131, .heads = 16, .heads_kv = 8, .head_dim = 64, .dtype = DType::bf16};
  const OracleInputs inputs = random_inputs(oracle_problem(p), 130);
  each_world([&](Mesh& mesh) {
    RunOptions run{.algorithm = Algorithm::ulysses, .deterministic = true, .ulysses_slices = 1};
    const RankResult one = run_rank(mesh, p, inputs, run);
    for (const int slices : {2, 3, 4}) {
      run.ulysses_slices = slices;
      const RankResult cut = run_rank(mesh, p, inputs, run);
      EXPECT_EQ(cut.out, one.out) << slices << " slices";
      EXPECT_EQ(cut.lse, one.lse) << slices << " slices";
      EXPECT_EQ(cut.dq, one.dq) << slices << " slices";
      EXPECT_EQ(cut.dk, one.dk) << slices << " slices";
      EXPECT_EQ(cut.dv, one.dv) << slices << " slices";
    }
  });
}

TEST(Distributed, LeavesRanksWithoutHeadsIdle) {
  // One key/value head and two query heads for up to eight ranks.
  Problem p{.batch = 1, .seq = 37, .heads = 2, .heads_kv = 1, .head_dim = 8};
  check(p, {{.algorithm = Algorithm::ulysses}, {.algorithm = Algorithm::gather}}, 100);
}

TEST(Distributed, ServesSoftcapScaleReferenceKernelAndThreads) {
  Problem p{.batch = 1,
            .seq = 47,
            .heads = 4,
            .heads_kv = 2,
            .head_dim = 8,
            .softcap = 3.0,
            .softmax_scale = 0.1};
  check(p,
        {{.algorithm = Algorithm::ring, .kernel = "reference"},
         {.algorithm = Algorithm::ring, .kernel = "naive"},
         {.algorithm = Algorithm::gather, .kernel = "flash1"},
         {.algorithm = Algorithm::ring, .threads = 2},
         {.algorithm = Algorithm::gather, .threads = 2},
         {.algorithm = Algorithm::ring, .blocking = true}},
        110);
}

/// Kernels that write dK and dV in the caller's dtype: on one rank into its tensors.
TEST(Distributed, RoundsKeyGradientsInKernels) {
  Problem p{.batch = 2, .seq = 53, .heads = 8, .heads_kv = 4, .head_dim = 8, .dtype = DType::bf16};
  const std::vector<RunOptions> runs{
      {.algorithm = Algorithm::ulysses, .kernel = "reference"},
      {.algorithm = Algorithm::ulysses, .kernel = "reference", .ulysses_slices = 2},
      {.algorithm = Algorithm::gather, .kernel = "reference"},
      {.algorithm = Algorithm::ring, .kernel = "reference", .calls = 2}};
  check(p, runs, 140);
  p.dtype = DType::f16;
  p.heads = 7;
  p.heads_kv = 7;
  p.head_dim_v = 24;
  p.mask = Mask::documents({20, 0, 33}, false);
  check(p, runs, 141);
  p = {.batch = 1, .seq = 5, .seq_kv = 90, .heads = 2, .head_dim = 8, .dtype = DType::bf16};
  p.mask = Mask::window(20);  // most keys see nobody: zeroes
  check(p, runs, 142);
}

}  // namespace
}  // namespace annulus::testing
