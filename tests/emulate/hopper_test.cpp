// The Hopper forward on an emulated block against the float64 oracle: indices, swizzles, masks,
// barrier phases, hazards between copies, products and stores. Speed it does not show.
#include "tests/emulate/forward.h"
#include "tests/emulate/problems.h"
#include "tests/gpu/shares.h"
#include "tests/support/hopper_candidates.h"
#include "tests/support/launch.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace annulus::testing {
namespace {

using attn::KeySegment;

struct Candidate {
  std::string name;  ///< hopper_candidates.h; empty: what is launched
  std::int64_t head_dim, head_dim_v;
};

/// Of what is launched.
constexpr std::pair<std::int64_t, std::int64_t> kDims[] = {{128, 128}, {64, 64},   {96, 96},
                                                           {192, 128}, {192, 192}, {256, 256}};

OracleProblem of_dims(OracleProblem p, std::int64_t dim_v) {
  p.head_dim_v = dim_v;
  return p;
}

void expect_right(const std::vector<TestLaunch>& chain, const Emulation& emulation = {}) {
  const OracleProblem& p = chain.front().problem;
  SCOPED_TRACE("seq " + std::to_string(p.seq) + ":" + std::to_string(p.seq_kv) + " dim " +
               std::to_string(p.head_dim) + ":" + std::to_string(p.head_dim_v) + " seed " +
               std::to_string(emulation.seed));
  const OracleInputs inputs = random_inputs(p, 17 + emulation.seed);
  OracleResult truth = oracle_attention(p, inputs);
  OracleResult naive = naive_attention(p, inputs);
  const RunOptions options{.gap = 8, .gap_step = 8, .backward = false};
  const RunResult result = run_kernel(emulated_hopper(emulation), chain, inputs, options);
  for (OracleResult* r : {&truth, &naive}) {
    for (auto* gradient : {&r->dq, &r->dk, &r->dv}) gradient->clear();
  }
  const Shares shares = shares_of(result.values, truth, naive);
  EXPECT_LE(shares.out, 1.0);
  EXPECT_LE(shares.lse, 1.0);
  EXPECT_TRUE(result.gaps_untouched);
  EXPECT_EQ(result.forward_flops, 2 * pairs_of(chain) * (p.head_dim + p.head_dim_v));
}

void expect_right(const OracleProblem& p, const Emulation& emulation = {},
                  const TileGrid& grid = kGrid) {
  expect_right({make_launch(p, one_segment(p), grid)}, emulation);
}

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

// What of the cases above a tuning can break: lengths about its tiles, orders of its warpgroups,
// masks, resumed states, flags, aborts.
class Candidates : public ::testing::TestWithParam<Candidate> {
 protected:
  OracleProblem problem(std::int64_t seq) const {
    return of_dims(problem_of(seq, GetParam().head_dim), GetParam().head_dim_v);
  }
  TileGrid grid(bool softcap = false) const {
    const attn::TileLimits tiles = emulated_hopper(emulation(1))
                                       .tiles({.head_dim = GetParam().head_dim,
                                               .head_dim_v = GetParam().head_dim_v,
                                               .softcap = softcap});
    return {tiles.rows, tiles.keys};
  }
  static Emulation emulation(std::uint64_t seed) {
    return {.seed = seed, .sms = static_cast<int>(seed), .candidate = GetParam().name};
  }
  TestLaunch launch_of(const OracleProblem& p) const {
    return make_launch(p, one_segment(p), grid());
  }
};

TEST_P(Candidates, Lengths) {
  std::uint64_t seed = 0;
  for (const std::int64_t seq : {1, 161, 450}) {
    OracleProblem p = problem(seq);
    expect_right({launch_of(p)}, emulation(++seed));
    p.terms.clear();
    expect_right({launch_of(p)}, emulation(++seed));
  }
}

TEST_P(Candidates, MasksAndSegments) {
  OracleProblem p = problem(400);
  p.terms = {Mask::Window{150, 0}};
  expect_right({launch_of(p)}, emulation(1));
  expect_right({make_launch(p, striped_segments(400, 4), grid())}, emulation(2));
  p.terms = {Mask::Documents{{100, 0, 37, 1, 262}, true}};
  expect_right({make_launch(p, segments_cut_at(400, {1, 8, 8, 77, 140, 300}), grid())},
               emulation(3));
  Mask::Rows rows;
  rows.intervals.assign(400, {});
  rows.intervals[3] = {KeyInterval{0, 1}};
  p.terms = {rows};
  expect_right({launch_of(p)}, emulation(1));
}

TEST_P(Candidates, Resumes) {
  const OracleProblem p = problem(313);
  std::vector<TestLaunch> chain;
  for (const KeySegment& segment : segments_cut_at(313, {5, 5, 180, 250})) {
    chain.push_back(make_launch(p, {segment}, grid()));
  }
  expect_right(chain, emulation(2));
}

/// Maxima that grow with every key, by less and by more than what a tuning lets pass.
TEST_P(Candidates, RowsThatGrow) {
  for (const double scale : {0.02, 1.0}) {
    OracleProblem p = problem(400);
    p.softmax_scale = scale;
    expect_right({launch_of(p)}, emulation(3));
  }
}

/// Items of one step, which run into each other at once, and blocks that have several: boundaries
/// with and without a step between.
TEST_P(Candidates, ItemsOfOneStep) {
  OracleProblem p = problem(450);
  p.heads = 6;
  p.heads_kv = 2;
  p.terms = {Mask::Documents{{100, 0, 37, 1, 312}, true}};
  expect_right({launch_of(p)}, emulation(1));
  p.seq_kv = 30;
  p.terms.clear();
  for (std::uint64_t seed = 1; seed < 3; ++seed) expect_right({launch_of(p)}, emulation(seed));
}

/// Query tiles whose rows are of several segments, between such as are of one.
TEST_P(Candidates, QuerySegments) {
  OracleProblem p = problem(450);
  TestLaunch launch = launch_of(p);
  launch.queries = {{0, 0, 100}, {100, 100, 1}, {101, 101, 349}};
  expect_right({launch}, emulation(1));
}

TEST_P(Candidates, FlagsAndAborts) {
  const OracleProblem p = problem(400);
  std::vector<std::uint32_t> flags{0, 0, 1};
  auto keys = segments_cut_at(400, {170, 250});
  for (std::size_t i = 0; i < keys.size(); ++i) keys[i].ready = &flags[i];
  Emulation late = emulation(1);
  late.late = {[&] { flags[0] = 7; }, [&] { flags[1] = 7; }};
  expect_right({make_launch(p, keys, grid())}, late);

  std::uint32_t word = 0;
  flags = {1, 0, 1};
  Emulation aborted = emulation(2);
  aborted.late = {[&] { word = 1; }};
  aborted.abort = &word;
  EXPECT_NO_THROW(run_kernel(emulated_hopper(aborted), {make_launch(p, keys, grid())},
                             random_inputs(p, 3), {.gap = 8, .gap_step = 8, .backward = false}));
}

/// The abort comes as the first step of an item, whose predecessor is not finished.
TEST_P(Candidates, AbortsBetweenItems) {
  const OracleProblem p = problem(400);
  auto keys = segments_cut_at(400, {200});
  std::uint32_t word = 0;
  std::uint32_t never = 0;
  keys[0].ready = &never;
  keys[0].all = 1;
  TestLaunch launch = make_launch(p, keys, grid());
  // The first query tile, which is drawn last, alone wants keys that never come.
  std::erase_if(launch.tiles, [](const attn::Tile& t) { return t.row > 0 && t.segment == 0; });
  Emulation aborted = emulation(1);
  aborted.abort = &word;
  aborted.late = {[&] { word = 1; }};
  // Raised while the launch waits, and from the beginning: then values are still under way.
  for (aborted.seed = 1; aborted.seed < 6; ++aborted.seed) {
    EXPECT_NO_THROW(run_kernel(emulated_hopper(aborted), {launch}, random_inputs(p, 3),
                               {.gap = 8, .gap_step = 8, .backward = false}));
    EXPECT_EQ(word, 1U);
  }
}

#define ANNULUS_CANDIDATE(name, dim) Candidate{#name "_" #dim, dim, dim},
INSTANTIATE_TEST_SUITE_P(Hopper, Candidates,
                         ::testing::Values(ANNULUS_HOPPER_CANDIDATES(ANNULUS_CANDIDATE)
                                               Candidate{"", 128, 128},
                                           Candidate{"", 64, 64}, Candidate{"", 96, 96},
                                           Candidate{"", 192, 128}, Candidate{"", 192, 192},
                                           Candidate{"", 256, 256}),
                         [](const auto& which) {
                           return which.param.name.empty()
                                      ? "launched_" + std::to_string(which.param.head_dim) + "_" +
                                            std::to_string(which.param.head_dim_v)
                                      : which.param.name;
                         });
#undef ANNULUS_CANDIDATE

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
