// The Hopper backward of the head dims beside 64 and 128 on an emulated block, as
// hopper_backward_test.cpp has those.
#include "tests/emulate/backward_check.h"
#include "tests/gpu/shares.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace annulus::testing {
namespace {

using attn::KeySegment;
using Options = BackwardOptions;

struct Dims {
  std::int64_t dim, dim_v;
};

class BackwardDims : public ::testing::TestWithParam<Dims> {
 protected:
  static OracleProblem problem(std::int64_t seq, DType dtype = DType::bf16) {
    OracleProblem p = problem_of(seq, GetParam().dim, dtype);
    p.head_dim_v = GetParam().dim_v;
    return p;
  }
  static TileGrid grid() { return backward_grid(problem(1)); }
  static TestLaunch launch_of(const OracleProblem& p, const std::vector<KeySegment>& keys) {
    return make_launch(p, keys, grid());
  }
  static Options ordered(std::uint64_t seed = 1) {
    return {.emulation = {.seed = seed, .sms = 1}, .backward = {.deterministic = true}};
  }
};

TEST_P(BackwardDims, Lengths) {
  std::uint64_t seed = 0;
  for (const std::int64_t seq : {1, 7, 64, 130, 200}) {
    expect_right(problem(seq), {.emulation = {.seed = ++seed}});
  }
  OracleProblem wide = problem(3);
  wide.terms.clear();
  wide.seq_kv = 133;
  expect_right(wide, {.emulation = {.seed = ++seed}});
  wide.seq = 201;
  wide.seq_kv = 1;
  expect_right(wide, {.emulation = {.seed = ++seed}});
  expect_right(problem(150, DType::f16), {.emulation = {.seed = ++seed, .sms = 1}});
}

TEST_P(BackwardDims, Groups) {
  OracleProblem p = problem(140);
  p.heads = 6;
  p.heads_kv = 2;
  expect_right(p, {.emulation = {.seed = 1, .sms = 3}});
  p = problem(200);
  p.heads = 3;
  expect_right(p, ordered());
}

TEST_P(BackwardDims, Masks) {
  OracleProblem p = problem(300);
  p.heads = 1;
  for (const std::vector<Mask::Term>& terms : {masks_of_300()[1], masks_of_300()[3]}) {
    p.terms = terms;
    expect_right(p);
  }
  p = problem(130);
  p.terms = {Mask::Causal{}};
  expect_right(p, {}, {48, 40});
  expect_right({every_tile(p, grid())});
}

TEST_P(BackwardDims, Softcap) {
  OracleProblem p = problem(150);
  p.softcap = 5.0;
  expect_right(p);
  p.dtype = DType::f16;
  p.heads = 1;
  expect_right(p, ordered());
}

TEST_P(BackwardDims, Segments) {
  OracleProblem p = problem(170);
  expect_right({launch_of(p, segments_cut_at(170, {1, 8, 8, 77, 140}))});
  p.terms.emplace_back(Mask::Window{110, 0});
  TestLaunch queries = launch_of(p, striped_segments(170, 3));
  queries.queries = {{0, 0, 100}, {100, 100, 1}, {101, 101, 69}};
  expect_right({queries}, ordered());
}

/// The first launch assigns; what comes after it adds.
TEST_P(BackwardDims, Chains) {
  const OracleProblem p = problem(140);
  std::vector<TestLaunch> chain;
  for (const KeySegment& segment : segments_cut_at(p.seq_kv, {5, 75})) {
    chain.push_back(launch_of(p, {segment}));
  }
  expect_right(chain);
  std::vector<TestLaunch> halves(2, launch_of(p, one_segment(p)));
  for (std::size_t i = 0; i < 2; ++i) {
    std::erase_if(halves[i].tiles,
                  [&](const attn::Tile& tile) { return (tile.key < 64) != (i == 0); });
  }
  expect_right(halves, {.add_key_gradients = true});
}

TEST_P(BackwardDims, RoundsKeyGradients) {
  OracleProblem p = problem(141);
  p.heads = 3;
  expect_rounded(p);
  expect_rounded({launch_of(p, segments_cut_at(141, {9, 70}))});
  OracleProblem few = problem(5, DType::f16);
  few.seq_kv = 140;
  few.terms = {Mask::Causal{}, Mask::Window{60, 0}};
  expect_rounded(few, ordered());
}

/// Boxes of keys read NaN behind tiles, those of queries and dO likewise.
TEST_P(BackwardDims, NotANumberBehindTiles) {
  const auto [dim, dim_v] = GetParam();
  expect_right({with_nan_between(dim, dim_v, grid())});
  expect_right({with_rows_between(dim, dim_v, grid().keys)}, {.nan_rows = {90, 100}});
}

TEST_P(BackwardDims, LateFlagsAndAborts) {
  const OracleProblem p = problem(200);
  std::vector<std::uint32_t> flags{1, 1, 1};
  auto keys = segments_cut_at(200, {70, 150});
  for (std::size_t i = 0; i < keys.size(); ++i) keys[i].ready = &flags[i];
  Options late{.emulation = {.sms = 1}};
  late.backward.before = [&] { flags = {0, 0, 1}; };
  late.emulation.late = {[&] { flags[0] = 7; }, [] {}, [&] { flags[1] = 7; }};
  expect_right({launch_of(p, keys)}, late);
  for (std::size_t segment = 0; segment < 3; ++segment) {
    std::uint32_t word = 0;
    Options aborted{
        .emulation = {.seed = segment + 1, .late = {[&] { word = 1; }}, .abort = &word}};
    flags = {1, 1, 1};
    aborted.backward.before = [&] { flags[segment] = 0; };
    EXPECT_NO_THROW(run_backward({launch_of(p, keys)}, random_inputs(p, 3), aborted));
    EXPECT_EQ(word, 1U);
  }
}

/// Same bits whatever the order in which things happen within a block; turns are awaited.
TEST_P(BackwardDims, Turns) {
  const OracleProblem p = problem(200);
  const TestLaunch launch = launch_of(p, one_segment(p));
  const OracleInputs inputs = random_inputs(p, 3);
  EXPECT_TRUE(same_bits(run_backward({launch}, inputs, ordered(1)).values,
                        run_backward({launch}, inputs, ordered(2)).values));
  std::vector<int> counters;
  Options options = ordered();
  options.backward.first_turn = -1;
  options.backward.counters = &counters;
  options.emulation.late = {[] {},
                            [&] {
                              for (int& counter : counters) ++counter;
                            }};
  expect_right({launch}, options);
}

INSTANTIATE_TEST_SUITE_P(Hopper, BackwardDims,
                         ::testing::Values(Dims{96, 96}, Dims{192, 128}, Dims{192, 192},
                                           Dims{256, 256}),
                         [](const auto& which) {
                           return std::to_string(which.param.dim) + "_" +
                                  std::to_string(which.param.dim_v);
                         });

}  // namespace
}  // namespace annulus::testing
