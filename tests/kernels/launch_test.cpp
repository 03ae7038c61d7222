// How a launch may be cut: segments, strides of positions, resumed states, tiles, threads.
#include "attention/kernels/dispatch.h"
#include "runtime/base/dtype.h"
#include "tests/kernels/kernel_checks.h"
#include "tests/kernels/under_test.h"
#include "tests/support/random.h"

#include <random>
#include <string>

namespace annulus::testing {
namespace {

using attn::Kernel;
using attn::KeySegment;

OracleProblem problem_of(DType dtype = DType::f32) {
  return {.batch = 2,
          .seq = 145,
          .seq_kv = 145,
          .heads = 4,
          .heads_kv = 2,
          .head_dim = 24,
          .head_dim_v = 40,
          .dtype = dtype,
          .terms = {Mask::Causal{}},
          .softmax_scale = 0.2};
}

void expect_matches_oracle(const Kernel& kernel, const std::vector<TestLaunch>& chain,
                           std::uint64_t seed, const RunOptions& options = {}) {
  SCOPED_TRACE(std::string(kernel.name) + " seed " + std::to_string(seed));
  const OracleProblem& problem = chain.front().problem;
  const OracleInputs inputs = random_inputs(problem, seed);
  const RunResult result = run_kernel(kernel, chain, inputs, options);
  expect_close(result.values, oracle_attention(problem, inputs), naive_attention(problem, inputs));
  EXPECT_TRUE(result.gaps_untouched);
}

TEST(Launch, MatchesTheOracleWhenKeysAreCutIntoOddSegments) {
  for (const Kernel* kernel : kernels_under_test()) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const OracleProblem problem = problem_of(dtype);
      const auto segments = segments_cut_at(problem.seq_kv, {1, 8, 8, 77, 140});
      expect_matches_oracle(*kernel, {make_launch(problem, segments)}, 3);
    }
  }
}

TEST(Launch, MatchesTheOracleWhereHeadsLieFirst) {
  for (const Kernel* kernel : kernels_under_test()) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const OracleProblem problem = problem_of(dtype);
      const auto segments = segments_cut_at(problem.seq_kv, {77});
      expect_matches_oracle(*kernel, {make_launch(problem, segments)}, 5, {.heads_first = true});
    }
  }
}

TEST(Launch, MatchesTheOracleWhenSegmentsComeInAnyOrder) {
  for (const Kernel* kernel : kernels_under_test()) {
    const OracleProblem problem = problem_of();
    auto segments = segments_cut_at(problem.seq_kv, {30, 101});
    std::swap(segments[0], segments[2]);
    expect_matches_oracle(*kernel, {make_launch(problem, segments)}, 5);
  }
}

/// Each with strides of its own; bits are those of keys in one tensor.
TEST(Launch, MatchesTheOracleWhenKeysLieInSeveralTensors) {
  for (const Kernel* kernel : kernels_under_test()) {
    const OracleProblem problem = problem_of(DType::bf16);
    const auto cuts = segments_cut_at(problem.seq_kv, {1, 8, 8, 20, 30, 77, 90, 100, 110, 140});
    const OracleInputs inputs = random_inputs(problem, 6);
    const RunResult one = run_kernel(*kernel, {make_launch(problem, cuts)}, inputs);
    for (const std::int32_t sources : {2, 3, 10}) {
      const auto segments = from_sources(cuts, sources);
      const TestLaunch launch = make_launch(problem, segments);
      expect_same_bits(run_kernel(*kernel, {launch}, inputs).values, one.values);
      const auto first = segments.begin();
      const TestLaunch begin = make_launch(problem, {first, first + 9});
      expect_matches_oracle(*kernel, {launch}, 3);
      expect_matches_oracle(*kernel, {begin, make_launch(problem, {first + 9, first + 11})}, 4);
    }
  }
}

TEST(Launch, MatchesTheOracleWhenPositionsAreStriped) {
  for (const Kernel* kernel : kernels_under_test()) {
    OracleProblem problem = problem_of();
    problem.terms.emplace_back(Mask::Window{50, 0});
    std::vector<KeySegment> segments;
    std::int64_t token = 0;
    for (std::int64_t first = 0; first < 4; ++first) {
      const std::int64_t count = (problem.seq_kv - first + 3) / 4;
      segments.push_back({token, first, 4, count});
      token += count;
    }
    expect_matches_oracle(*kernel, {make_launch(problem, segments, {64, 16})}, 7);
  }
}

TEST(Launch, MatchesTheOracleWhenResumedFromAState) {
  for (const Kernel* kernel : kernels_under_test()) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      const OracleProblem problem = problem_of(dtype);
      std::vector<TestLaunch> chain;
      for (const KeySegment& segment : segments_cut_at(problem.seq_kv, {5, 5, 80, 133})) {
        chain.push_back(make_launch(problem, {segment}));
      }
      expect_matches_oracle(*kernel, chain, 11);
    }
  }
}

TEST(Launch, KeepsItsStateWhereTheOutputGoes) {
  for (const Kernel* kernel : kernels_under_test()) {
    const OracleProblem problem = problem_of();
    const OracleInputs inputs = random_inputs(problem, 12);
    std::vector<TestLaunch> chain;
    for (const KeySegment& segment : segments_cut_at(problem.seq_kv, {5, 80})) {
      chain.push_back(make_launch(problem, {segment}));
    }
    const RunResult apart = run_kernel(*kernel, chain, inputs);
    const RunResult shared = run_kernel(*kernel, chain, inputs, {.state_in_out = true});
    expect_same_bits(shared.values, apart.values);
  }
}

TEST(Launch, ResumesPastLaunchesThatSeeNothing) {
  for (const Kernel* kernel : kernels_under_test()) {
    for (const std::size_t empty_at : {0U, 1U, 2U}) {
      const OracleProblem problem = problem_of();
      std::vector<TestLaunch> chain;
      for (const KeySegment& segment : segments_cut_at(problem.seq_kv, {90})) {
        chain.push_back(make_launch(problem, {segment}));
      }
      const auto place = chain.begin() + static_cast<std::ptrdiff_t>(empty_at);
      chain.insert(place, make_launch(problem, {}));
      expect_matches_oracle(*kernel, chain, 13);
    }
  }
}

TEST(Launch, ResumesPastTilesWhoseEveryPairIsMasked) {
  for (const Kernel* kernel : kernels_under_test()) {
    OracleProblem problem = problem_of();
    problem.terms = {Mask::Causal{}, Mask::Window{30, 0}};
    TestLaunch launch = make_launch(problem, one_segment(problem), {64, 32});
    launch.tiles.clear();  // visit all, masked or not
    for (std::int32_t row = 0; row < 145; row += 64) {
      for (std::int32_t key = 0; key < 145; key += 32) {
        launch.tiles.push_back(
            {row, std::min(64, 145 - row), 0, std::min(32, 145 - key), key, false});
      }
    }
    expect_matches_oracle(*kernel, {launch}, 17);
  }
}

TEST(Launch, KeepsRowsApartThatATileDoesNotCover) {
  // Both tiles begin at row 0 and are full, but the second ends after 21 of the 50 rows.
  OracleProblem problem = problem_of();
  problem.seq = 50;
  problem.seq_kv = 40;
  Mask::Rows rows;
  for (std::int64_t i = 0; i < 50; ++i)
    rows.intervals.push_back({KeyInterval{0, i < 21 ? 40 : 20}});
  problem.terms = {rows};
  for (const Kernel* kernel : kernels_under_test()) {
    TestLaunch launch = make_launch(problem, one_segment(problem));
    launch.tiles = {{0, 50, 0, 20, 0, true}, {0, 21, 0, 20, 20, true}};
    expect_matches_oracle(*kernel, {launch}, 18);
  }
}

TEST(Launch, GivesTheSameBitsForAnyRowTiling) {
  const OracleProblem problem = problem_of();
  const OracleInputs inputs = random_inputs(problem, 19);
  const auto segments = segments_cut_at(problem.seq_kv, {50});
  for (const Kernel* kernel : kernels_under_test()) {
    if (kernel->name == "flash1") continue;  // a visit rounds O, even if the row sees no key of it
    const TestLaunch usual = make_launch(problem, segments, {64, 48});
    const RunResult expected = run_kernel(*kernel, {usual}, inputs);
    for (const std::int64_t rows : {1, 5, 33, 100, 145}) {
      SCOPED_TRACE(std::string(kernel->name) + " " + std::to_string(rows));
      const TestLaunch launch = make_launch(problem, segments, {rows, 48});
      const RunResult result = run_kernel(*kernel, {launch}, inputs);
      EXPECT_EQ(max_error(result.values.out, expected.values.out), 0.0);
      EXPECT_EQ(max_error(result.values.lse, expected.values.lse), 0.0);
      EXPECT_EQ(max_error(result.values.dq, expected.values.dq), 0.0);
    }
  }
}

TEST(Launch, GivesTheSameBitsForAnyThreadCount) {
  for (const Kernel* kernel : kernels_under_test()) {
    const OracleProblem problem = problem_of(DType::bf16);
    const OracleInputs inputs = random_inputs(problem, 23);
    const std::vector<TestLaunch> chain{make_launch(problem, one_segment(problem))};
    const RunResult one = run_kernel(*kernel, chain, inputs, {.threads = 1});
    for (const int threads : {2, 3, 8}) {
      const RunResult many = run_kernel(*kernel, chain, inputs, {.threads = threads});
      expect_same_bits(many.values, one.values);
      EXPECT_EQ(many.forward_flops, one.forward_flops);
      EXPECT_EQ(many.backward_flops, one.backward_flops);
    }
  }
}

TEST(Launch, GivesTheSameBitsWhenThreadsShareOneKeyHead) {
  // 19 row blocks of one key/value head: several units of the backward pass add to every key.
  OracleProblem problem = problem_of();
  problem.batch = 1;
  problem.heads = problem.heads_kv = 1;
  problem.seq = problem.seq_kv = 1200;
  const OracleInputs inputs = random_inputs(problem, 24);
  const std::vector<TestLaunch> chain{
      make_launch(problem, segments_cut_at(problem.seq_kv, {300, 301}), {64, 96})};
  for (const Kernel* kernel : kernels_under_test()) {
    if (kernel->name == "reference") continue;  // one thread
    const RunResult one = run_kernel(*kernel, chain, inputs, {.threads = 1});
    for (const int threads : {2, 5}) {
      for (int run = 0; run < 4; ++run) {
        const RunResult many = run_kernel(*kernel, chain, inputs, {.threads = threads});
        SCOPED_TRACE(std::string(kernel->name) + " threads " + std::to_string(threads));
        expect_same_bits(many.values, one.values);
      }
    }
  }
}

std::int64_t tile_pairs(const TestLaunch& launch) {
  std::int64_t pairs = 0;
  for (const attn::Tile& tile : launch.tiles) pairs += std::int64_t{tile.rows} * tile.keys;
  return pairs;
}

TEST(Launch, CountsTheFlopsOfEveryTileVisited) {
  for (const Kernel* kernel : kernels_under_test()) {
    const OracleProblem problem = problem_of();
    const OracleInputs inputs = random_inputs(problem, 29);
    TestLaunch launch = make_launch(problem, segments_cut_at(problem.seq_kv, {77}), {60, 200});
    const auto expect_counted = [&] {
      const RunResult result = run_kernel(*kernel, {launch}, inputs);
      const std::int64_t pairs = problem.batch * problem.heads * tile_pairs(launch);
      EXPECT_EQ(result.forward_flops, 2 * pairs * (24 + 40)) << kernel->name;
      EXPECT_EQ(result.backward_flops, 2 * pairs * (3 * 24 + 2 * 40)) << kernel->name;
    };
    expect_counted();
    launch.tiles.insert(launch.tiles.begin() + 1, launch.tiles[1]);  // twice: shows
    expect_counted();
  }
}

/// Keys that no row sees are 0 in either dtype.
TEST(Launch, RoundsKeyGradientsWhereTheKernelSaysSo) {
  int rounding = 0;
  for (const Kernel* kernel : kernels_under_test()) {
    EXPECT_TRUE(kernel->name != "reference" || kernel->rounds_dkv != nullptr);
    for (const DType dtype : {DType::bf16, DType::f16}) {
      OracleProblem problem = problem_of(dtype);
      problem.terms = {Mask::Causal{}, Mask::Window{30, 0}};
      problem.seq = 70;
      const attn::KernelQuery query{dtype, problem.head_dim, problem.head_dim_v, true,
                                    kernel->backend};
      if (kernel->rounds_dkv == nullptr || !kernel->rounds_dkv(query)) continue;
      ++rounding;
      const std::vector<TestLaunch> chain{
          make_launch(problem, segments_cut_at(problem.seq_kv, {1, 8, 8, 77, 140}))};
      const OracleInputs inputs = random_inputs(problem, 41);
      const RunResult plain = run_kernel(*kernel, chain, inputs);
      const RunResult rounded = run_kernel(*kernel, chain, inputs, {.rounded_keys = true});
      const OracleResult naive = naive_attention(problem, inputs);
      expect_close(rounded.values, oracle_attention(problem, inputs), naive);
      EXPECT_EQ(rounded.values.dq, plain.values.dq);
      EXPECT_NE(rounded.values.dk, plain.values.dk);
      for (const std::vector<double>* values : {&rounded.values.dk, &rounded.values.dv}) {
        for (const double x : *values) ASSERT_EQ(x, rounded_to(dtype, x));
      }
      EXPECT_TRUE(rounded.gaps_untouched);
    }
  }
  if (rounding == 0) GTEST_SKIP() << "no kernel rounds";
}

TEST(Launch, PollsAtLeastOnceForEachTile) {
  for (const Kernel* kernel : kernels_under_test()) {
    const OracleProblem problem = problem_of();
    const TestLaunch launch = make_launch(problem, one_segment(problem));
    const RunResult result = run_kernel(*kernel, {launch}, random_inputs(problem, 31));
    const auto tiles = static_cast<std::int64_t>(launch.tiles.size());
    EXPECT_GE(result.polls, 2 * problem.batch * problem.heads * tiles) << kernel->name;
  }
}

TEST(Launch, ServesSomeHeadsOfAGroup) {
  // Query heads 2, 3 and 4 of 6 in groups of 3: the first reads key/value head 0, the others 1.
  const OracleProblem whole{.seq = 40,
                            .seq_kv = 40,
                            .heads = 6,
                            .heads_kv = 2,
                            .head_dim = 8,
                            .head_dim_v = 8,
                            .terms = {Mask::Causal{}},
                            .softmax_scale = 0.3};
  const OracleInputs inputs = random_inputs(whole, 37);
  const OracleResult truth = oracle_attention(whole, inputs);
  const TestLaunch launch = make_launch(whole, one_segment(whole));
  const std::vector<std::int64_t> tokens = [] {
    std::vector<std::int64_t> all(40);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
    return all;
  }();
  for (const Kernel* kernel : kernels_under_test()) {
    TestTensor q(DType::f32, 1, 40, 6, 8, 0), k(DType::f32, 1, 40, 2, 8, 0),
        v(DType::f32, 1, 40, 2, 8, 0), out(DType::f32, 1, 40, 6, 8, 0),
        lse(DType::f32, 1, 40, 6, 1, 0);
    q.set(inputs.q, tokens);
    k.set(inputs.k, tokens);
    v.set(inputs.v, tokens);
    attn::ForwardParams params{.geometry = launch.geometry(),
                               .q = q.input(),
                               .k = k.input(),
                               .v = v.input(),
                               .out = out.output(),
                               .lse = lse.output(),
                               .state = {}};
    params.geometry.heads = 3;
    params.geometry.head_offset = 2;
    params.q.data = static_cast<const float*>(params.q.data) + 2 * 8;
    params.out.data = static_cast<float*>(params.out.data) + 2 * 8;
    params.lse.data = static_cast<float*>(params.lse.data) + 2;
    std::vector<std::byte> workspace(
        static_cast<std::size_t>(kernel->workspace_bytes(params.geometry, false, 1)));
    kernel->forward(params, {1, {}, nullptr, workspace});
    const std::vector<double> values = out.get(tokens);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::size_t head = i / 8 % 6;
      if (head >= 2 && head < 5) {
        ASSERT_NEAR(values[i], truth.out[i], 1e-5) << kernel->name;
      } else {
        ASSERT_TRUE(std::isnan(values[i])) << kernel->name;
      }
    }
  }
}

TEST(Launch, AddsGradientsUnlessToldToAssign) {
  const OracleProblem problem{.seq = 50,
                              .seq_kv = 50,
                              .heads = 2,
                              .heads_kv = 1,
                              .head_dim = 8,
                              .head_dim_v = 8,
                              .softmax_scale = 0.3};
  const OracleInputs inputs = random_inputs(problem, 41);
  const OracleResult truth = oracle_attention(problem, inputs);
  for (const Kernel* kernel : kernels_under_test()) {
    // Both launches name all keys, but each its half of the tiles: dk and dv add up.
    std::vector<TestLaunch> chain(2, make_launch(problem, one_segment(problem), {50, 20}));
    const auto tiles = chain[0].tiles;
    chain[0].tiles = {tiles[0]};
    chain[1].tiles = {tiles[1], tiles[2]};
    const RunResult result = run_kernel(*kernel, chain, inputs, {.add_key_gradients = true});
    EXPECT_LT(max_error(result.values.dk, truth.dk), 1e-5) << kernel->name;
    EXPECT_LT(max_error(result.values.dv, truth.dv), 1e-5) << kernel->name;
    EXPECT_LT(max_error(result.values.dq, truth.dq), 1e-5) << kernel->name;
  }
}

/// The check of exact zeros finds what it is for: a row that sees nothing, a key that nobody sees.
TEST(Launch, KnowsWhatNothingIsSeenOf) {
  OracleProblem p = problem_of();
  Mask::Rows rows;
  rows.intervals.assign(145, {KeyInterval{3, 20}});
  rows.intervals[7] = {};
  p.terms = {rows};
  const TestLaunch launch = make_launch(p, one_segment(p));
  const OracleResult truth = oracle_attention(p, random_inputs(p, 1));
  EXPECT_EQ(unseen_not_zero(launch, truth), "");
  const auto found = [&](std::vector<double> OracleResult::*tensor, std::int64_t token) {
    OracleResult wrong = truth;
    std::vector<double>& values = wrong.*tensor;
    // The last element of the token in the second of two batches.
    values[values.size() / 2 + static_cast<std::size_t>(token + 1) * values.size() / 290 - 1] =
        -1e-30;
    return unseen_not_zero(launch, wrong);
  };
  EXPECT_NE(found(&OracleResult::out, 7), "");
  EXPECT_NE(found(&OracleResult::dq, 7), "");
  EXPECT_NE(found(&OracleResult::dk, 20), "");
  EXPECT_NE(found(&OracleResult::dv, 2), "");
  EXPECT_EQ(found(&OracleResult::dq, 8), "");
  EXPECT_EQ(found(&OracleResult::dk, 19), "");
}

}  // namespace
}  // namespace annulus::testing
