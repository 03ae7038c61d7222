// Tunings of the Hopper forward on emulated blocks: what is launched, for each head dim, and those
// of the candidates that differ in what blocks share. What of the cases of hopper_test.cpp a tuning
// can break: lengths about its tiles, orders of its warpgroups, masks, resumed states, flags,
// aborts.
#include "tests/emulate/forward_check.h"
#include "tests/support/hopper_candidates.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace annulus::testing {
namespace {

using attn::KeySegment;

struct Candidate {
  std::string name;  ///< hopper_candidates.h; empty: what is launched
  std::int64_t head_dim, head_dim_v;
};

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

INSTANTIATE_TEST_SUITE_P(Hopper, Candidates,
                         ::testing::Values(Candidate{"short_128", 128, 128},
                                           Candidate{"queries_128", 128, 128},
                                           Candidate{"turns_192", 192, 192},
                                           Candidate{"", 128, 128}, Candidate{"", 64, 64},
                                           Candidate{"", 96, 96}, Candidate{"", 192, 128},
                                           Candidate{"", 192, 192}, Candidate{"", 256, 256}),
                         [](const auto& which) {
                           return which.param.name.empty()
                                      ? "launched_" + std::to_string(which.param.head_dim) + "_" +
                                            std::to_string(which.param.head_dim_v)
                                      : which.param.name;
                         });
}  // namespace
}  // namespace annulus::testing
