// The Hopper forward on an emulated block against the float64 oracle: indices, swizzles, masks,
// barrier phases, hazards between copies, products and stores. Speed it does not show.
#include "tests/emulate/forward_check.h"
#include "tests/support/launch.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

namespace annulus::testing {
namespace {

using attn::KeySegment;

/// Of what is launched.
constexpr std::pair<std::int64_t, std::int64_t> kDims[] = {{128, 128}, {64, 64},   {96, 96},
                                                           {192, 128}, {192, 192}, {256, 256}};

TEST(EmulatedHopper, LengthsThatFitNoTile) {
  std::uint64_t seed = 0;
  for (const std::int64_t seq : {1, 7, 130, 300}) {
    expect_right(problem_of(seq), {.seed = ++seed});
    OracleProblem full = problem_of(seq);
    full.terms.clear();
    expect_right(full, {.seed = ++seed});
  }
  OracleProblem wide = problem_of(3);
  wide.terms.clear();
  wide.seq_kv = 515;
  expect_right(wide, {.seed = ++seed});
  wide.seq = 260;
  wide.seq_kv = 1;
  expect_right(wide, {.seed = ++seed});
}

TEST(EmulatedHopper, TypesAndHeadDims) {
  for (const auto& [dim, dim_v] : kDims) {
    expect_right(of_dims(problem_of(200, dim, DType::f16), dim_v));
  }
  for (const std::int64_t seq : {1, 129, 650}) expect_right(problem_of(seq, 64));
}

TEST(EmulatedHopper, WholeTiles) {
  OracleProblem p = problem_of(512);
  p.heads = 1;
  expect_right(p, {.sms = 1});
  p.terms.clear();
  expect_right(p, {.seed = 2, .sms = 3});
}

TEST(EmulatedHopper, OrdersOfTheSchedule) {
  OracleProblem p = problem_of(257, 64);
  p.batch = 2;
  p.heads = 6;
  p.heads_kv = 2;
  for (std::uint64_t seed = 1; seed < 4; ++seed) {
    expect_right(p, {.seed = seed, .sms = static_cast<int>(seed)});
  }
  expect_right(p, {.sms = 100, .sm_limit = 5});
}

/// One made before each launch, and one that is kept: for several blocks, with a counter of FLOPs
/// that begins with 0 or is added to.
TEST(EmulatedHopper, KeptSchedulesAndThoseOfALaunch) {
  const OracleProblem p = problem_of(700);
  for (const bool kept : {true, false}) {
    expect_right(p, {.sms = 3, .kept = kept});
    expect_right({make_launch(p, segments_cut_at(700, {257}), kGrid)}, {.sms = 5, .kept = kept});
  }
  expect_right(p, {.sms = 3, .flops_assign = true});
}

TEST(EmulatedHopper, Masks) {
  OracleProblem p = problem_of(300);
  p.heads = 1;
  for (const std::vector<Mask::Term>& terms : masks_of_300()) {
    p.terms = terms;
    expect_right(p);
  }
  p.terms = {Mask::Causal{}};
  expect_right(p, {}, {48, 40});
  p.seq = 70;
  expect_right(p);
  p.seq = 300;
  p.seq_kv = 90;
  expect_right(p);
}

TEST(EmulatedHopper, SingleTiles) {
  expect_right(problem_of(650), {.joined = false});
  OracleProblem p = problem_of(400, 64);
  p.terms = {Mask::Window{200, 0}};
  expect_right(p, {.joined = false});
}

TEST(EmulatedHopper, Softcap) {
  for (const auto& [dim, dim_v] : kDims) {
    OracleProblem p = of_dims(problem_of(200, dim), dim_v);
    p.softcap = 5.0;
    expect_right(p);
  }
}

/// Tiles that the mask empties are visited; and a query tile whose tiles are of different heights.
TEST(EmulatedHopper, TilesThatShowNothing) {
  expect_right({every_tile(problem_of(300))});
  expect_right({uneven_tiles(128)});
}

TEST(EmulatedHopper, Segments) {
  for (const std::int64_t dim : {128, 64}) {
    OracleProblem p = problem_of(313, dim);
    expect_right({make_launch(p, segments_cut_at(313, {1, 8, 8, 77, 140, 300}), kGrid)});
    auto mixed = segments_cut_at(313, {30, 201});
    std::swap(mixed[0], mixed[2]);
    expect_right({make_launch(p, mixed, kGrid)});
    p.terms.emplace_back(Mask::Window{150, 0});
    expect_right({make_launch(p, striped_segments(313, 4), kGrid)});
    TestLaunch queries = make_launch(p, one_segment(p), kGrid);
    queries.queries = {{0, 0, 100}, {100, 100, 1}, {101, 101, 212}};
    expect_right({queries});
  }
}

TEST(EmulatedHopper, Resumes) {
  for (const std::vector<std::int64_t>& cuts :
       {std::vector<std::int64_t>{5, 5, 180, 250}, {0, 200, 200, 313}}) {
    for (const std::int64_t dim : {128, 64}) {
      const OracleProblem p = problem_of(313, dim);
      std::vector<TestLaunch> chain;
      for (const KeySegment& segment : segments_cut_at(p.seq_kv, cuts)) {
        chain.push_back(make_launch(p, {segment}, kGrid));
      }
      expect_right(chain);
    }
  }
}

double mean_square(const std::vector<double>& out, const OracleResult& truth) {
  double sum = 0.0;
  for (std::size_t i = 0; i < truth.out.size(); ++i) {
    sum += (out[i] - truth.out[i]) * (out[i] - truth.out[i]);
  }
  return sum;
}

double mean_square(const OracleProblem& p, const std::vector<TestLaunch>& chain,
                   std::uint64_t seed = 17) {
  const OracleInputs inputs = random_inputs(p, seed);
  const RunResult result =
      run_kernel(emulated_hopper({}), chain, inputs, {.gap = 8, .gap_step = 8, .backward = false});
  return mean_square(result.values.out, oracle_attention(p, inputs));
}

/// As a ring of eight takes keys that are dealt out one by one; a row sees 26. Its largest
/// probability is 1 in one launch, and not rounded: so it has to be behind a state, where with the
/// slack of later steps it was what the LSE leaves (1.11 of one launch's error).
TEST(EmulatedHopper, ChainsAreAsExactAsOneLaunch) {
  OracleProblem p = problem_of(300);
  p.terms = {Mask::Window{25, 0}};
  std::vector<TestLaunch> chain;
  for (const KeySegment& segment : striped_segments(p.seq_kv, 8)) {
    chain.push_back(make_launch(p, {segment}, kGrid));
  }
  const double one = mean_square(p, {make_launch(p, one_segment(p), kGrid)});
  EXPECT_LE(std::sqrt(mean_square(p, chain) / one), 1.08);
}

/// As ulysses takes keys that were dealt out one by one: a row's keys come in as many steps as
/// there are ranks. Its largest probability is 1 wherever it comes, and not rounded (with slack in
/// these steps four ranks had 1.10 of one launch's error).
TEST(EmulatedHopper, KeysDealtOutAreAsExactAsOneLaunch) {
  OracleProblem p = problem_of(307);
  p.heads = 4;
  p.heads_kv = 2;
  constexpr std::uint64_t kSeed = 14;  // of the engine's test at the widths of tensor cores
  const double one = mean_square(p, {make_launch(p, one_segment(p), kGrid)}, kSeed);
  for (const int ranks : {4, 8}) {
    const TestLaunch dealt = make_launch(p, striped_segments(p.seq_kv, ranks), kGrid);
    EXPECT_LE(std::sqrt(mean_square(p, {dealt}, kSeed) / one), 1.0) << ranks << " ranks";
  }
}

/// Between the segments are tokens that hold NaN: boxes read them, results must not.
TEST(EmulatedHopper, NotANumberBehindTiles) {
  for (const auto& [dim, dim_v] : kDims) {
    expect_right({with_nan_between(dim, dim_v)});
  }
}

/// No key at all, and no key for some rows of a query tile.
TEST(EmulatedHopper, RowsWithoutKeys) {
  OracleProblem p = problem_of(140);
  Mask::Rows rows;
  rows.intervals.assign(140, {});
  p.terms = {rows};
  expect_right(p);
  rows.intervals[3] = {KeyInterval{0, 1}};
  p.terms = {rows};
  expect_right(p);
}

/// The flag of the second segment is raised when nobody can go on without it, and its keys are NaN
/// until then.
TEST(EmulatedHopper, LateFlags) {
  const OracleProblem p = problem_of(300);
  for (std::uint64_t seed = 1; seed < 4; ++seed) {
    std::vector<std::uint32_t> flags{0, 0, 1};
    auto keys = segments_cut_at(300, {130, 250});
    for (std::size_t i = 0; i < keys.size(); ++i) keys[i].ready = &flags[i];
    expect_right(
        {make_launch(p, keys, kGrid)},
        {.seed = seed, .sms = 1, .late = {[&] { flags[0] = 7; }, [] {}, [&] { flags[1] = 7; }}});
  }
}

/// What a block stood still counts, what it had keys for meanwhile does not.
TEST(EmulatedHopper, CountsWhatItWaits) {
  const OracleProblem p = problem_of(300);
  std::vector<std::uint32_t> flags{1, 1, 1};
  auto keys = segments_cut_at(300, {130, 250});
  for (std::size_t i = 0; i < keys.size(); ++i) keys[i].ready = &flags[i];
  attn::WaitCount prompt;
  expect_right({make_launch(p, keys, kGrid)}, {.sms = 1, .waited = &prompt});
  EXPECT_EQ(prompt.blocks, 1);
  EXPECT_EQ(prompt.nanoseconds, 0);

  // The world outside acts when nobody can go on: all keys that are there have been taken, which
  // the loader sees when it looks again.
  for (std::uint64_t seed = 1; seed < 4; ++seed) {
    std::vector<std::uint64_t> waits;
    for (const std::size_t idle : {std::size_t{1}, std::size_t{6}}) {
      flags = {1, 0, 1};
      attn::WaitCount late;
      Emulation emulation{.seed = seed, .sms = 1, .waited = &late};
      emulation.late.resize(idle, [] {});
      emulation.late.push_back([&] { flags[1] = 1; });
      expect_right({make_launch(p, keys, kGrid)}, emulation);
      EXPECT_EQ(late.blocks, 1);
      EXPECT_GT(late.nanoseconds, 0);
      waits.push_back(late.nanoseconds);
    }
    EXPECT_GE(waits[1], waits[0] + 5);  // five looks more
  }
}

/// Keys arrive block by block and head by head; the launch takes them so.
TEST(EmulatedHopper, KeysThatArriveInParts) {
  OracleProblem p = problem_of(300);
  p.heads = 6;
  p.heads_kv = 2;
  const std::vector<std::uint32_t> needed{0, 2, 1, 3, 4, 4};
  for (const bool by_block : {true, false}) {
    for (std::uint64_t seed = 1; seed < 3; ++seed) {
      std::uint32_t arrived = 0;
      std::vector<std::uint32_t> stops;
      const auto more = [&] { stops.push_back(arrived++); };
      auto keys = one_segment(p);
      keys[0].ready = &arrived;
      keys[0].all = 4;
      if (by_block) keys[0].needed = needed.data();
      expect_right({make_launch(p, keys, kGrid)},
                   {.seed = seed, .sms = 1, .late = {more, more, more, more}});
      EXPECT_EQ(stops, (std::vector<std::uint32_t>{0, 1, 2, 3}));
    }
  }
}

/// The launch ends, wherever it stands. That no copy is under way then, the machine checks.
TEST(EmulatedHopper, Aborts) {
  const OracleProblem p = problem_of(300);
  const OracleInputs inputs = random_inputs(p, 3);
  for (std::size_t segment = 0; segment < 3; ++segment) {
    for (std::uint64_t seed = 1; seed < 4; ++seed) {
      std::uint32_t word = 0;
      std::vector<std::uint32_t> flags{1, 1, 1};
      flags[segment] = 0;
      auto keys = segments_cut_at(300, {130, 250});
      for (std::size_t i = 0; i < keys.size(); ++i) keys[i].ready = &flags[i];
      const Emulation emulation{.seed = seed, .late = {[&] { word = 1; }}, .abort = &word};
      EXPECT_NO_THROW(run_kernel(emulated_hopper(emulation), {make_launch(p, keys, kGrid)}, inputs,
                                 {.gap = 8, .gap_step = 8, .backward = false}));
      EXPECT_EQ(word, 1U);
    }
  }
}

/// What hangs is said to hang.
TEST(EmulatedHopper, AFlagThatNobodyRaises) {
  const OracleProblem p = problem_of(20);
  const std::uint32_t flag = 0;
  auto keys = one_segment(p);
  keys[0].ready = &flag;
  EXPECT_THROW(run_kernel(emulated_hopper({}), {make_launch(p, keys, kGrid)}, random_inputs(p, 1),
                          {.gap = 8, .gap_step = 8, .backward = false}),
               emulate::Misuse);
}

}  // namespace
}  // namespace annulus::testing
