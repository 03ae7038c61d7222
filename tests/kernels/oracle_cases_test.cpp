// All kernels against the oracle, one launch at a time: sizes, heads, masks, score rules.
#include "attention/kernels/dispatch.h"
#include "tests/kernels/kernel_checks.h"
#include "tests/kernels/under_test.h"
#include "tests/support/random.h"
#include "tests/support/mask_list.h"

#include <random>
#include <string>

namespace annulus::testing {
namespace {

using attn::Kernel;

constexpr DType kTypes[] = {DType::f32, DType::bf16, DType::f16};

std::string describe(const Kernel& kernel, const OracleProblem& p, std::uint64_t seed) {
  return std::string(kernel.name) + " " + std::string(name_of(p.dtype)) + " seq " +
         std::to_string(p.seq) + ":" + std::to_string(p.seq_kv) + " heads " +
         std::to_string(p.heads) + ":" + std::to_string(p.heads_kv) + " dim " +
         std::to_string(p.head_dim) + ":" + std::to_string(p.head_dim_v) + " seed " +
         std::to_string(seed);
}

/// All kernels, or those in f32 arithmetic, which are the fast ones.
enum class Which { all, f32_arithmetic };

void check_kernels(const OracleProblem& problem, std::uint64_t seed, Which which = Which::all,
                   const TileGrid& grid = {}, double input_scale = 1.0) {
  const OracleInputs inputs = random_inputs(problem, seed, input_scale);
  const OracleResult truth = oracle_attention(problem, inputs);
  const OracleResult naive = naive_attention(problem, inputs);
  const TestLaunch launch = make_launch(problem, one_segment(problem), grid);
  for (const Kernel* kernel : kernels_under_test()) {
    if (which == Which::f32_arithmetic && kernel->name == "reference") continue;
    SCOPED_TRACE(describe(*kernel, problem, seed));
    const RunResult result = run_kernel(*kernel, {launch}, inputs);
    expect_close(result.values, truth, naive, input_scale);
    EXPECT_TRUE(result.gaps_untouched);
  }
}

OracleProblem small_problem(std::vector<Mask::Term> terms) {
  return {.seq = 97,
          .seq_kv = 97,
          .heads = 2,
          .heads_kv = 1,
          .head_dim = 16,
          .head_dim_v = 16,
          .terms = std::move(terms),
          .softmax_scale = 0.25};
}

TEST(Kernels, MatchTheOracleForOddSizes) {
  for (const DType dtype : kTypes) {
    for (const std::int64_t seq : {1, 7, 130}) {
      for (const std::int64_t dim : {1, 7, 16, 80, 128}) {
        check_kernels({.batch = 2,
                       .seq = seq,
                       .seq_kv = seq,
                       .heads = 4,
                       .heads_kv = 2,
                       .head_dim = dim,
                       .head_dim_v = dim,
                       .dtype = dtype,
                       .terms = {Mask::Causal{}},
                       .softmax_scale = 1.0 / std::sqrt(static_cast<double>(dim))},
                      7);
      }
    }
  }
}

class StandingCase : public ::testing::TestWithParam<DType> {};

TEST_P(StandingCase, MatchesTheOracleFor24To8HeadsOf613Tokens) {
  check_kernels({.seq = 613,
                 .seq_kv = 613,
                 .heads = 24,
                 .heads_kv = 8,
                 .head_dim = 128,
                 .head_dim_v = 128,
                 .dtype = GetParam(),
                 .terms = {Mask::Causal{}},
                 .softmax_scale = 1.0 / std::sqrt(128.0)},
                613, Which::f32_arithmetic);
}

INSTANTIATE_TEST_SUITE_P(Types, StandingCase, ::testing::ValuesIn(kTypes));

TEST(Kernels, MatchTheOracleWhenValuesHaveAnotherDim) {
  for (const DType dtype : kTypes) {
    for (const auto& [dim, dim_v] : {std::pair{192, 128}, {7, 80}, {80, 1}, {512, 512}}) {
      check_kernels({.seq = 70,
                     .seq_kv = 70,
                     .heads = 2,
                     .heads_kv = 2,
                     .head_dim = dim,
                     .head_dim_v = dim_v,
                     .dtype = dtype,
                     .softmax_scale = 0.1},
                    11);
    }
  }
}

TEST(Kernels, MatchTheOracleWhenAllQueryHeadsShareOneKeyHead) {
  for (const DType dtype : kTypes) {
    check_kernels({.batch = 2,
                   .seq = 150,
                   .seq_kv = 150,
                   .heads = 6,
                   .heads_kv = 1,
                   .head_dim = 32,
                   .head_dim_v = 32,
                   .dtype = dtype,
                   .terms = {Mask::Causal{}},
                   .softmax_scale = 0.1},
                  3);
  }
}

TEST(Kernels, MatchTheOracleForEveryMask) {
  for (const auto& terms : masks_of_97()) check_kernels(small_problem(terms), 5);
}

TEST(Kernels, MatchTheOracleWhenRowsSeeTwoIntervals) {
  std::mt19937 generator(17);
  Mask::Rows rows;
  for (std::int64_t i = 0; i < 97; ++i) {
    std::int64_t cuts[4];
    for (std::int64_t& cut : cuts) cut = random_between(generator, 0, 97);
    std::sort(std::begin(cuts), std::end(cuts));
    rows.intervals.push_back({KeyInterval{cuts[0], cuts[1]}, KeyInterval{cuts[2], cuts[3]}});
  }
  check_kernels(small_problem({rows}), 19);
}

TEST(Kernels, MatchTheOracleWhenKeysAreMoreOrFewerThanQueries) {
  for (const std::int64_t seq_kv : {0, 1, 30, 200}) {
    for (const CausalAlign align : {CausalAlign::bottom_right, CausalAlign::top_left}) {
      OracleProblem problem = small_problem({Mask::Causal{align}});
      problem.seq_kv = seq_kv;
      check_kernels(problem, 23);
      problem.terms = {Mask::Window{9, 2, align}};
      check_kernels(problem, 29);
    }
  }
}

TEST(Kernels, MatchTheOracleWithSoftcap) {
  for (const DType dtype : kTypes) {
    for (const double softcap : {0.5, 30.0}) {
      OracleProblem problem = small_problem({Mask::Causal{}});
      problem.softcap = softcap;
      problem.dtype = dtype;
      check_kernels(problem, 31);
    }
  }
}

TEST(Kernels, MatchTheOracleForLogitsOfTenThousand) {
  for (const DType dtype : kTypes) {
    OracleProblem problem = small_problem({Mask::Causal{}});
    problem.dtype = dtype;
    const double scale = std::sqrt(1e4);  // q.k * 0.25 is then about 4 * 0.25 * 1e4
    check_kernels(problem, 37, Which::all, {}, scale);
  }
}

TEST(Kernels, GiveZeroAndMinusInfinityForRowsThatSeeNothing) {
  // The first 60 rows see nothing, within tiles that others make worth visiting.
  OracleProblem problem = small_problem({Mask::Causal{}});
  problem.seq_kv = 37;
  for (const double input_scale : {1.0, 100.0}) {
    const OracleInputs inputs = random_inputs(problem, 41, input_scale);
    for (const Kernel* kernel : kernels_under_test()) {
      SCOPED_TRACE(describe(*kernel, problem, 41));
      const TestLaunch launch = make_launch(problem, one_segment(problem), {97, 37});
      const RunResult result = run_kernel(*kernel, {launch}, inputs);
      const auto row_values = static_cast<std::size_t>(problem.heads * problem.head_dim);
      for (std::size_t i = 0; i < 60 * row_values; ++i) {
        ASSERT_EQ(result.values.out[i], 0.0);
        ASSERT_EQ(result.values.dq[i], 0.0);
      }
      for (std::size_t i = 0; i < 60; ++i) ASSERT_EQ(result.values.lse[i], -HUGE_VAL);
      EXPECT_LT(max_error(result.values.dk, oracle_attention(problem, inputs).dk),
                1e-3 * input_scale * input_scale);
    }
  }
}

TEST(Kernels, KeepNanInputsVisible) {
  const OracleProblem problem = small_problem({Mask::Causal{}});
  OracleInputs inputs = random_inputs(problem, 43);
  inputs.q[0] = std::nan("");
  for (const Kernel* kernel : kernels_under_test()) {
    const RunResult result =
        run_kernel(*kernel, {make_launch(problem, one_segment(problem))}, inputs);
    EXPECT_TRUE(std::isnan(result.values.out[0])) << kernel->name;
    EXPECT_FALSE(std::isnan(result.values.out[40])) << kernel->name;
  }
}

/// One head, full mask, as `annulus bench --suite classic` has them.
OracleProblem classic(std::int64_t batch, std::int64_t seq, std::int64_t dim) {
  return {.batch = batch,
          .seq = seq,
          .seq_kv = seq,
          .head_dim = dim,
          .head_dim_v = dim,
          .softmax_scale = 1.0 / std::sqrt(static_cast<double>(dim))};
}

TEST(Classic, Case1x32x16) { check_kernels(classic(1, 32, 16), 51); }
TEST(Classic, Case2x64x32) { check_kernels(classic(2, 64, 32), 52); }
TEST(Classic, Case4x128x64) { check_kernels(classic(4, 128, 64), 53); }
TEST(Classic, HeadDim1) { check_kernels(classic(1, 64, 1), 54); }
TEST(Classic, HeadDim7) { check_kernels(classic(1, 64, 7), 55); }
TEST(Classic, HeadDim16) { check_kernels(classic(1, 64, 16), 56); }

TEST(Classic, SoftmaxScaleOfATenth) {
  OracleProblem problem = classic(2, 64, 32);
  problem.softmax_scale = 0.1;
  check_kernels(problem, 57);
}

TEST(Kernels, MatchTheOracleForSoftmaxScalesThatAreZeroOrNegative) {
  for (const double scale : {0.0, -0.3}) {
    OracleProblem problem = small_problem({Mask::Causal{}});
    problem.softmax_scale = scale;
    check_kernels(problem, 58);
  }
}

class TileSizes : public ::testing::TestWithParam<std::int64_t> {};

TEST_P(TileSizes, MatchTheOracleForEveryKernel) {
  OracleProblem problem = small_problem({Mask::Causal{}, Mask::Window{150, 0}});
  problem.seq = problem.seq_kv = 300;
  problem.dtype = DType::bf16;
  for (const std::int64_t tile_k : {1, 7, 16, 48, 64, 128, 200, 512}) {
    if (GetParam() * tile_k < 7) continue;  // a tile for every pair is too many for a test
    SCOPED_TRACE(tile_k);
    check_kernels(problem, 59, Which::f32_arithmetic, {GetParam(), tile_k});
  }
}

INSTANTIATE_TEST_SUITE_P(TileQ, TileSizes, ::testing::Values(1, 7, 16, 48, 64, 128, 200, 512));

OracleProblem random_problem(std::mt19937_64& generator) {
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return random_between(generator, low, high);
  };
  OracleProblem p{.batch = pick(1, 2),
                  .seq = pick(1, 160),
                  .head_dim = pick(1, 70),
                  .head_dim_v = pick(1, 70),
                  .dtype = kTypes[pick(0, 2)],
                  .softmax_scale = 0.1};
  p.seq_kv = pick(0, 1) == 0 ? p.seq : pick(0, 200);
  p.heads_kv = pick(1, 3);
  p.heads = p.heads_kv * pick(1, 3);
  if (pick(0, 2) > 0) p.terms.emplace_back(Mask::Causal{});
  if (pick(0, 2) == 0) p.terms.emplace_back(Mask::Window{pick(-1, 50), pick(-1, 50)});
  if (pick(0, 3) == 0) p.softcap = 2.0;
  return p;
}

TEST(Kernels, MatchTheOracleForRandomProblemsAndTileGrids) {
  std::mt19937_64 generator(20240613);
  for (std::uint64_t round = 0; round < 40; ++round) {
    const OracleProblem problem = random_problem(generator);
    const TileGrid grid{random_between(generator, 1, 150), random_between(generator, 1, 300)};
    check_kernels(problem, round, Which::f32_arithmetic, grid);
  }
}

}  // namespace
}  // namespace annulus::testing
