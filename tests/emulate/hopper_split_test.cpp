// Launches of the Hopper forward that are split over keys, and whose heads are packed, on emulated
// blocks against the float64 oracle.
#include "attention/kernels/sm90/split.h"
#include "tests/emulate/forward_check.h"
#include "tests/gpu/shares.h"

#include <gtest/gtest.h>

#include <type_traits>
#include <utility>
#include <vector>

namespace annulus::testing {
namespace {

using attn::KeySegment;
using attn::sm90::Split;

/// Full, few rows and many keys.
OracleProblem few_rows(std::int64_t rows, std::int64_t keys, std::int64_t dim,
                       std::int64_t heads = 2, std::int64_t heads_kv = 1) {
  OracleProblem p = problem_of(rows, dim);
  p.seq_kv = keys;
  p.heads = heads;
  p.heads_kv = heads_kv;
  p.terms.clear();
  return p;
}

/// Split so, whatever the host would choose.
void expect_split(const Split& split, const std::vector<TestLaunch>& chain, Emulation emulation) {
  emulation.split = split;
  expect_right(chain, emulation);
}
void expect_split(const Split& split, const OracleProblem& p, const Emulation& emulation) {
  expect_split(split, {make_launch(p, one_segment(p), kGrid)}, emulation);
}

TEST(EmulatedSplit, OneRowOfEveryHeadDim) {
  // As many parts as there are four steps: of 160, 128, 96, 128, 112 and 80 keys.
  const struct {
    std::int64_t dim, dim_v;
    int parts;
  } cases[] = {{128, 128, 2}, {64, 64, 2},   {96, 96, 3},
               {192, 128, 2}, {192, 192, 3}, {256, 256, 4}};
  for (const auto& c : cases) {
    OracleProblem p = of_dims(few_rows(1, 1301, c.dim), c.dim_v);
    expect_split({c.parts, 2}, p, {.sms = 64});
    p.dtype = DType::f16;
    p.softcap = 5.0;
    expect_right(p, {.seed = 2, .sms = 64});  // as launches are split
    EXPECT_GT(emulated_split().parts, 1);
  }
}

TEST(EmulatedSplit, RowsAndHeads) {
  // 21 packed rows, of two batches; heads of their own; two query tiles, which are too tall.
  OracleProblem p = few_rows(7, 700, 256, 6, 2);
  p.batch = 2;
  expect_split({2, 3}, p, {.sms = 16});
  expect_split({2, 1}, few_rows(7, 700, 256, 3, 3), {.sms = 6});
  expect_split({2, 1}, few_rows(130, 700, 256), {.sms = 9});
  // Fewer blocks than items: each has several, of several heads.
  expect_split({2, 1}, few_rows(7, 1301, 64, 3, 3), {.sms = 7, .sm_limit = 6});
}

/// A lane of the merge weighs two.
TEST(EmulatedSplit, MorePartsThanLanes) {
  OracleProblem p = few_rows(2, 33 * 320, 256);
  p.softmax_scale = 0.5;  // rows that see little of most parts
  expect_split({64, 2}, p, {.sms = 33});
}

TEST(EmulatedSplit, PackedWithoutParts) {
  expect_split({1, 4}, few_rows(3, 450, 256, 8, 2), {.sms = 2});
}

/// A query tile has as many parts as it has four steps, some fewer than others.
TEST(EmulatedSplit, QueryTilesOfDifferentLength) {
  OracleProblem p = few_rows(140, 1000, 256, 1, 1);
  Mask::Rows rows;
  for (std::int64_t i = 0; i < 140; ++i) {
    rows.intervals.push_back(i < 128 ? RowIntervals{KeyInterval{0, 1000}}
                                     : RowIntervals{KeyInterval{3, 90}, KeyInterval{501, 503}});
  }
  p.terms = {rows};
  expect_split({3, 1}, p, {.sms = 3});
}

/// Tiles that the mask empties are visited: parts and rows see nothing.
TEST(EmulatedSplit, PartsThatSeeNothing) {
  for (const std::int64_t heads_kv : {1, 2}) {
    OracleProblem p = few_rows(5, 1000, 256, 2, heads_kv);
    Mask::Rows rows;
    rows.intervals.assign(5, RowIntervals{});
    rows.intervals[1] = {KeyInterval{400, 401}};
    rows.intervals[2] = {KeyInterval{0, 3}, KeyInterval{997, 1000}};
    rows.intervals[4] = {KeyInterval{990, 1000}};
    p.terms = {rows};
    expect_split({3, heads_kv == 1 ? 2 : 1}, {every_tile(p)}, {.sms = 16});
  }
}

TEST(EmulatedSplit, Masks) {
  OracleProblem p = few_rows(60, 700, 256, 2, 2);
  p.terms = {Mask::Prefix{650}};
  expect_split({2, 1}, p, {.sms = 16});
  p.terms = {Mask::Rows{}};
  auto& intervals = std::get<Mask::Rows>(p.terms.front()).intervals;
  for (std::int64_t i = 0; i < 60; ++i) {
    intervals.push_back({KeyInterval{7 * i, 7 * i + 60}, KeyInterval{7 * i + 61, 640 + i}});
  }
  expect_split({2, 1}, p, {.sms = 16});
  p.heads_kv = 1;
  expect_split({2, 2}, p, {.sms = 16});
  expect_split({2, 2}, p, {.sms = 16, .joined = false});
}

TEST(EmulatedSplit, SegmentsAndQuerySegments) {
  for (const std::int64_t heads_kv : {1, 2}) {
    OracleProblem p = few_rows(50, 901, 256, 2, heads_kv);
    const Split split{2, heads_kv == 1 ? 2 : 1};
    expect_split(split, {make_launch(p, segments_cut_at(901, {1, 8, 8, 77, 140, 300}), kGrid)},
                 {.sms = 4});
    TestLaunch queries = make_launch(p, striped_segments(901, 3), kGrid);
    queries.queries = {{0, 0, 20}, {20, 20, 1}, {21, 21, 29}};
    expect_split(split, {queries}, {.seed = 2, .sms = 4});
  }
}

/// The first launch sees nothing of some rows, states are resumed and left, and finished last.
TEST(EmulatedSplit, Resumes) {
  for (const std::int64_t heads_kv : {1, 2}) {
    OracleProblem p = few_rows(5, 1500, 256, 2, heads_kv);
    Mask::Rows rows;
    rows.intervals.assign(5, {KeyInterval{0, 1500}});
    rows.intervals[1] = {KeyInterval{800, 1500}};
    rows.intervals[3] = {KeyInterval{0, 5}};
    p.terms = {rows};
    std::vector<TestLaunch> chain;
    for (const KeySegment& segment : segments_cut_at(p.seq_kv, {700, 700, 760})) {
      chain.push_back(make_launch(p, {segment}, kGrid));
    }
    expect_split({3, heads_kv == 1 ? 2 : 1}, chain, {.sms = 3});
    expect_right(chain, {.sms = 8});  // as launches are split
    EXPECT_GT(emulated_split().parts, 1);
  }
}

/// Rows that no tile names keep what they resume with, or become nothing.
TEST(EmulatedSplit, RowsWithoutKeys) {
  OracleProblem p = few_rows(90, 1500, 256);
  Mask::Rows rows;
  rows.intervals.assign(90, RowIntervals{});
  for (std::size_t i = 40; i < 50; ++i) rows.intervals[i] = {KeyInterval{0, 1500}};
  rows.intervals[3] = {KeyInterval{0, 4}};
  p.terms = {rows};
  std::vector<TestLaunch> chain;
  for (const KeySegment& segment : segments_cut_at(p.seq_kv, {800})) {
    chain.push_back(make_launch(p, {segment}, {16, 128}));
  }
  expect_split({3, 1}, chain, {.sms = 32});
}

TEST(EmulatedSplit, NotANumberBehindTiles) {
  OracleProblem p = few_rows(3, 900, 256);
  Mask::Rows rows;
  rows.intervals.assign(3, {KeyInterval{0, 330}, KeyInterval{501, 899}});
  p.terms = {rows};
  expect_split({2, 2}, {make_launch(p, {{0, 0, 1, 330}, {501, 501, 1, 398}}, kGrid)}, {.sms = 8});
}

/// Parts wait for different flags.
TEST(EmulatedSplit, LateFlags) {
  const OracleProblem p = few_rows(3, 900, 256);
  for (std::uint64_t seed = 1; seed < 3; ++seed) {
    std::vector<std::uint32_t> flags{0, 0, 1};
    auto keys = segments_cut_at(900, {230, 700});
    for (std::size_t i = 0; i < keys.size(); ++i) keys[i].ready = &flags[i];
    expect_split({2, 2}, {make_launch(p, keys, kGrid)},
                 {.seed = seed, .sms = 8, .late = {[&] { flags[0] = 7; }, [&] { flags[1] = 7; }}});
  }
}

/// Keys arrive block by block and head by head; packed heads wait for those of theirs.
TEST(EmulatedSplit, KeysThatArriveInParts) {
  const OracleProblem p = few_rows(3, 700, 256, 6, 2);
  const std::vector<std::uint32_t> needed{0, 2, 1, 3, 4, 4, 1, 1, 3, 2, 0, 5};
  for (const std::int32_t group : {1, 3}) {
    std::uint32_t arrived = 0;
    const auto more = [&] { ++arrived; };
    auto keys = one_segment(p);
    keys[0].ready = &arrived;
    keys[0].all = 5;
    keys[0].needed = needed.data();
    expect_split({2, group}, {make_launch(p, keys, kGrid)},
                 {.sms = 4, .late = {more, more, more, more, more}});
    EXPECT_EQ(arrived, 5U);
  }
}

TEST(EmulatedSplit, Aborts) {
  const OracleProblem p = few_rows(3, 900, 256);
  const OracleInputs inputs = random_inputs(p, 3);
  for (std::size_t segment = 0; segment < 3; ++segment) {
    std::uint32_t word = 0;
    std::vector<std::uint32_t> flags{1, 1, 1};
    flags[segment] = 0;
    auto keys = segments_cut_at(900, {230, 700});
    for (std::size_t i = 0; i < keys.size(); ++i) keys[i].ready = &flags[i];
    const Emulation emulation{
        .sms = 8, .late = {[&] { word = 1; }}, .abort = &word, .split = Split{2, 2}};
    EXPECT_NO_THROW(run_kernel(emulated_hopper(emulation), {make_launch(p, keys, kGrid)}, inputs,
                               {.gap = 8, .gap_step = 8, .backward = false}));
    EXPECT_EQ(word, 1U);
  }
}

/// Heads in two launches, the second of which begins with the second group.
TEST(EmulatedSplit, HeadOffset) {
  static const attn::Kernel& whole = emulated_hopper({.sms = 8, .split = Split{2, 2}});
  attn::Kernel halves = whole;
  halves.forward = [](const attn::ForwardParams& params, const attn::LaunchContext& context) {
    attn::ForwardParams half = params;
    half.geometry.heads = 2;
    whole.forward(half, context);
    half.geometry.head_offset = 2;
    const auto moved = [](auto operand) {
      using Byte = std::conditional_t<std::is_same_v<decltype(operand.data), void*>, std::byte,
                                      const std::byte>;
      operand.data = static_cast<Byte*>(operand.data) +
                     2 * operand.head_stride * static_cast<std::int64_t>(size_of(operand.dtype));
      return operand;
    };
    half.q = moved(params.q);
    half.out = moved(params.out);
    half.lse = moved(params.lse);
    half.state = moved(params.state);
    whole.forward(half, context);
  };
  const OracleProblem p = few_rows(3, 700, 256, 4, 2);
  const OracleInputs inputs = random_inputs(p, 5);
  OracleResult truth = oracle_attention(p, inputs);
  OracleResult naive = naive_attention(p, inputs);
  for (OracleResult* r : {&truth, &naive}) {
    for (auto* gradient : {&r->dq, &r->dk, &r->dv}) gradient->clear();
  }
  const RunResult result = run_kernel(halves, {make_launch(p, one_segment(p), kGrid)}, inputs,
                                      {.gap = 8, .gap_step = 8, .backward = false});
  EXPECT_LE(shares_of(result.values, truth, naive).worst(), 1.0);
}

/// The order in which parts are computed does not show.
TEST(EmulatedSplit, SameBits) {
  const OracleProblem p = few_rows(5, 1301, 256, 6, 2);
  const OracleInputs inputs = random_inputs(p, 5);
  const auto run = [&](const Emulation& emulation) {
    return run_kernel(emulated_hopper(emulation), {make_launch(p, one_segment(p), kGrid)}, inputs,
                      {.gap = 8, .gap_step = 8, .backward = false})
        .values;
  };
  const OracleResult first = run({.seed = 1, .sms = 16, .split = Split{4, 3}});
  const OracleResult again = run({.seed = 9, .sms = 3, .split = Split{4, 3}});
  EXPECT_EQ(first.out, again.out);
  EXPECT_EQ(first.lse, again.lse);
}

}  // namespace
}  // namespace annulus::testing
