// The Hopper backward on an emulated block against the float64 oracle, as hopper_test.cpp has the
// forward. Results and gaps start as NaN.
#include "tests/emulate/backward_check.h"
#include "tests/gpu/shares.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace annulus::testing {
namespace {

using attn::KeySegment;

using Options = BackwardOptions;

TEST(EmulatedHopperBackward, WholeTiles) {
  OracleProblem p = problem_of(256);
  p.terms.clear();
  p.heads = 1;
  expect_right(p);
  p.head_dim = p.head_dim_v = 64;
  expect_right(p, {.emulation = {.seed = 2, .sms = 1}});
}

TEST(EmulatedHopperBackward, LengthsThatFitNoTile) {
  std::uint64_t seed = 0;
  for (const std::int64_t dim : {128, 64}) {
    for (const std::int64_t seq : {1, 7, 130, 200}) {
      OracleProblem p = problem_of(seq, dim);
      expect_right(p, {.emulation = {.seed = ++seed}});
      p.terms.clear();
      expect_right(p, {.emulation = {.seed = ++seed}});
    }
    OracleProblem wide = problem_of(3, dim);
    wide.terms.clear();
    wide.seq_kv = 260;
    expect_right(wide, {.emulation = {.seed = ++seed}});
    wide.seq = 260;
    wide.seq_kv = 1;
    expect_right(wide, {.emulation = {.seed = ++seed}});
  }
}

TEST(EmulatedHopperBackward, Halves) {
  expect_right(problem_of(150, 128, DType::f16));
  expect_right(problem_of(150, 64, DType::f16));
}

/// Heads of one group meet the key tile one after another; items are drawn by several blocks.
TEST(EmulatedHopperBackward, GroupsAndSchedules) {
  OracleProblem p = problem_of(140, 64);
  p.batch = 2;
  p.heads = 6;
  p.heads_kv = 2;
  for (std::uint64_t seed = 1; seed < 4; ++seed) {
    expect_right(p, {.emulation = {.seed = seed, .sms = static_cast<int>(seed)}});
  }
  expect_right(p, {.emulation = {.sms = 100, .sm_limit = 5}});
  OracleProblem wide = problem_of(200);
  wide.heads = 3;
  expect_right(wide, {.emulation = {.sms = 1}});
}

TEST(EmulatedHopperBackward, Masks) {
  for (const std::int64_t dim : {128, 64}) {
    OracleProblem p = problem_of(300, dim);
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
}

TEST(EmulatedHopperBackward, Softcap) {
  for (const std::int64_t dim : {128, 64}) {
    OracleProblem p = problem_of(200, dim);
    p.softcap = 5.0;
    expect_right(p);
    expect_right(p, {.emulation = {.sms = 1}, .backward = {.deterministic = true}});
  }
}

/// Tiles that the mask empties are visited; and key tiles whose tiles are of different widths.
TEST(EmulatedHopperBackward, TilesThatShowNothing) {
  for (const std::int64_t dim : {128, 64}) {
    expect_right({every_tile(problem_of(300, dim))});
    expect_right({uneven_tiles(dim)});
    expect_right({uneven_tiles(dim)},
                 {.emulation = {.sms = 1}, .backward = {.deterministic = true}});
  }
}

TEST(EmulatedHopperBackward, Segments) {
  for (const std::int64_t dim : {128, 64}) {
    OracleProblem p = problem_of(213, dim);
    expect_right({make_launch(p, segments_cut_at(213, {1, 8, 8, 77, 140}), kGrid)});
    auto mixed = segments_cut_at(213, {30, 151});
    std::swap(mixed[0], mixed[2]);
    expect_right({make_launch(p, mixed, kGrid)});
    p.terms.emplace_back(Mask::Window{150, 0});
    expect_right({make_launch(p, striped_segments(213, 4), kGrid)});
    TestLaunch queries = make_launch(p, one_segment(p), kGrid);
    queries.queries = {{0, 0, 100}, {100, 100, 1}, {101, 101, 112}};
    expect_right({queries});
    expect_right({queries}, {.emulation = {.sms = 1}, .backward = {.deterministic = true}});
  }
}

/// The first launch of a chain assigns dQ, the others add; dK and dV of each are its own.
TEST(EmulatedHopperBackward, Chains) {
  for (const std::int64_t dim : {128, 64}) {
    const OracleProblem p = problem_of(213, dim);
    std::vector<TestLaunch> chain;
    for (const KeySegment& segment : segments_cut_at(p.seq_kv, {5, 5, 150})) {
      chain.push_back(make_launch(p, {segment}, kGrid));
    }
    expect_right(chain);
  }
}

/// Two launches name all keys, each with its part of the tiles.
TEST(EmulatedHopperBackward, AddsKeyGradients) {
  for (const std::int64_t dim : {128, 64}) {
    const OracleProblem p = problem_of(213, dim);
    std::vector<TestLaunch> halves(2, make_launch(p, one_segment(p), kGrid));
    for (std::size_t i = 0; i < 2; ++i) {
      std::erase_if(halves[i].tiles,
                    [&](const attn::Tile& tile) { return (tile.key < 100) != (i == 0); });
    }
    expect_right(halves, {.add_key_gradients = true});
  }
}

/// Of groups of heads too, of keys that nobody sees, and of launches that each have their keys.
TEST(EmulatedHopperBackward, RoundsKeyGradients) {
  for (const std::int64_t dim : {128, 64}) {
    OracleProblem p = problem_of(203, dim);
    p.heads = 3;
    expect_rounded(p, {.emulation = {.sms = 2}});
    p.heads = 1;
    p.dtype = DType::f16;
    expect_rounded(p, {.emulation = {.sms = 1}, .backward = {.deterministic = true}});
    OracleProblem few = problem_of(5, dim);
    few.seq_kv = 300;
    few.terms = {Mask::Causal{}, Mask::Window{290, 0}};
    expect_rounded(few);
    expect_right(few, {.rounded_keys = true});
    std::vector<TestLaunch> chain;
    for (const KeySegment& segment : segments_cut_at(p.seq_kv, {5, 5, 150})) {
      chain.push_back(make_launch(p, {segment}, kGrid));
    }
    expect_rounded(chain);
  }
}

/// Between the segments are tokens that hold NaN, and between query tiles: boxes read them, results
/// must not.
TEST(EmulatedHopperBackward, NotANumberBehindTiles) {
  for (const std::int64_t dim : {128, 64}) {
    expect_right({with_nan_between(dim)});
    expect_right({with_rows_between(dim, dim, 128)}, {.nan_rows = {90, 100}});
  }
}

TEST(EmulatedHopperBackward, RowsWithoutKeys) {
  OracleProblem p = problem_of(140);
  Mask::Rows rows;
  rows.intervals.assign(140, {});
  for (int some = 0; some < 2; ++some) {
    if (some == 1) rows.intervals[3] = {KeyInterval{0, 1}};
    p.terms = {rows};
    const RunResult result = expect_right({every_tile(p)});
    const auto count = static_cast<std::int64_t>(result.values.dq.size()) / 140 / p.heads;
    for (std::int64_t row = 0; row < 140; ++row) {
      if (some == 1 && row == 3) continue;
      for (std::int64_t i = 0; i < p.heads * count; ++i) {
        ASSERT_EQ(result.values.dq[static_cast<std::size_t>(row * p.heads * count + i)], 0.0);
      }
    }
  }
}

TEST(EmulatedHopperBackward, LateFlags) {
  const OracleProblem p = problem_of(300);
  for (std::uint64_t seed = 1; seed < 4; ++seed) {
    std::vector<std::uint32_t> flags{1, 1, 1};
    auto keys = segments_cut_at(300, {130, 250});
    for (std::size_t i = 0; i < keys.size(); ++i) keys[i].ready = &flags[i];
    // Flags are up for the forward of each run; the backward's first late work takes them down.
    Options options{.emulation = {.seed = seed, .sms = 1}};
    options.backward.before = [&] { flags = {0, 0, 1}; };
    options.emulation.late = {[&] { flags[0] = 7; }, [] {}, [&] { flags[1] = 7; }};
    expect_right({make_launch(p, keys, kGrid)}, options);
    EXPECT_EQ(flags, (std::vector<std::uint32_t>{7, 7, 1}));
  }
}

TEST(EmulatedHopperBackward, CountsWhatItWaits) {
  const OracleProblem p = problem_of(300);
  std::vector<std::uint32_t> flags{1, 1, 1};
  auto keys = segments_cut_at(300, {130, 250});
  for (std::size_t i = 0; i < keys.size(); ++i) keys[i].ready = &flags[i];
  attn::WaitCount count;
  Options options{.emulation = {.sms = 1, .waited = &count}};
  options.backward.before = [&] { count = {}; };
  expect_right({make_launch(p, keys, kGrid)}, options);
  EXPECT_EQ(count.blocks, 1);
  EXPECT_EQ(count.nanoseconds, 0);
  options.backward.before = [&] {
    count = {};
    flags = {1, 0, 1};
  };
  options.emulation.late = {[] {}, [] {}, [] {}, [&] { flags[1] = 1; }};
  expect_right({make_launch(p, keys, kGrid)}, options);
  EXPECT_EQ(count.blocks, 1);
  EXPECT_GT(count.nanoseconds, 3);
}

/// Keys arrive block by block and head by head; the launch takes them so.
TEST(EmulatedHopperBackward, KeysThatArriveInParts) {
  OracleProblem p = problem_of(300);
  p.heads = 4;
  p.heads_kv = 2;
  const std::vector<std::uint32_t> needed{0, 2, 1, 3, 4, 4};
  for (std::uint64_t seed = 1; seed < 3; ++seed) {
    std::uint32_t arrived = 4;
    auto keys = one_segment(p);
    keys[0].ready = &arrived;
    keys[0].all = 4;
    keys[0].needed = needed.data();
    Options options{.emulation = {.seed = seed, .sms = 1}};
    options.backward.before = [&] { arrived = 0; };
    const auto more = [&] { ++arrived; };
    options.emulation.late = {more, more, more, more};
    expect_right({make_launch(p, keys, kGrid)}, options);
    EXPECT_EQ(arrived, 4U);
  }
}

/// The launch ends, wherever it stands. That no copy is under way then, the machine checks.
TEST(EmulatedHopperBackward, Aborts) {
  const OracleProblem p = problem_of(300);
  const OracleInputs inputs = random_inputs(p, 3);
  for (std::size_t segment = 0; segment < 3; ++segment) {
    for (std::uint64_t seed = 1; seed < 3; ++seed) {
      std::uint32_t word = 0;
      std::vector<std::uint32_t> flags{1, 1, 1};
      auto keys = segments_cut_at(300, {130, 250});
      for (std::size_t i = 0; i < keys.size(); ++i) keys[i].ready = &flags[i];
      Options options{.emulation = {.seed = seed, .late = {[&] { word = 1; }}, .abort = &word}};
      options.backward.before = [&] { flags[segment] = 0; };
      EXPECT_NO_THROW(run_backward({make_launch(p, keys, kGrid)}, inputs, options));
      EXPECT_EQ(word, 1U);
    }
  }
}

/// Same bits whatever the order in which things happen within a block.
TEST(EmulatedHopperBackward, Deterministic) {
  for (const std::int64_t dim : {128, 64}) {
    OracleProblem p = problem_of(300, dim);
    const TestLaunch launch = make_launch(p, one_segment(p), kGrid);
    const OracleInputs inputs = random_inputs(p, 3);
    const auto values = [&](std::uint64_t seed) {
      return run_backward(
                 {launch}, inputs,
                 {.emulation = {.seed = seed, .sms = 1}, .backward = {.deterministic = true}})
          .values;
    };
    EXPECT_TRUE(same_bits(values(1), values(2)));
    expect_right({launch}, {.emulation = {.sms = 1}, .backward = {.deterministic = true}});
  }
}

/// A turn that has not come is awaited: the counters begin one too low. The machine knows who
/// passes on what was not his.
TEST(EmulatedHopperBackward, AwaitsTurns) {
  for (const std::int64_t dim : {128, 64}) {
    std::vector<int> counters;
    Options options{.emulation = {.sms = 1},
                    .backward = {.deterministic = true, .first_turn = -1, .counters = &counters}};
    options.emulation.late = {[] {},
                              [&] {
                                for (int& counter : counters) ++counter;
                              }};
    expect_right(problem_of(200, dim), options);
  }
}

/// An abort ends waits for turns too.
TEST(EmulatedHopperBackward, AbortsTurns) {
  std::uint32_t word = 0;
  Options options{.emulation = {.sms = 1, .abort = &word},
                  .backward = {.deterministic = true, .first_turn = -1}};
  options.emulation.late.assign(200, [] {});  // it looks at the word now and then
  options.emulation.late.front() = [&] { word = 1; };
  const OracleProblem p = problem_of(200);
  EXPECT_NO_THROW(
      run_backward({make_launch(p, one_segment(p), kGrid)}, random_inputs(p, 3), options));
}

TEST(EmulatedHopperBackward, RandomShapes) {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    std::mt19937_64 random(seed);
    const auto draw = [&](std::int64_t from, std::int64_t to) {
      return from + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(to - from + 1));
    };
    OracleProblem p =
        problem_of(draw(1, 280), draw(0, 1) * 64 + 64, draw(0, 1) == 0 ? DType::bf16 : DType::f16);
    p.seq_kv = draw(0, 1) == 0 ? p.seq : draw(1, 280);
    p.heads_kv = draw(1, 2);
    p.heads = p.heads_kv * draw(1, 3);
    p.softcap = draw(0, 2) == 0 ? 5.0 : 0.0;
    if (draw(0, 2) == 0) p.terms.emplace_back(Mask::Window{draw(1, 150), 0});
    if (draw(0, 3) == 0) p.terms.clear();
    const std::int64_t cut = draw(0, p.seq_kv);
    const bool ordered = draw(0, 1) == 0;
    SCOPED_TRACE("random shape of seed " + std::to_string(seed));
    expect_right({make_launch(p, segments_cut_at(p.seq_kv, {cut}), kGrid)},
                 {.emulation = {.seed = seed, .sms = ordered ? 1 : static_cast<int>(draw(1, 4))},
                  .backward = {.deterministic = ordered}});
  }
}

}  // namespace
}  // namespace annulus::testing
