// Deterministic launches of the Hopper forward, split at fixed positions of the sequence, on
// emulated blocks against the float64 oracle. On ranks: hopper_bits_test.cpp.
#include "attention/kernels/sm90/split.h"
#include "tests/emulate/forward_check.h"

#include <gtest/gtest.h>

#include <cstdint>
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

/// Deterministic, of a sequence that is as the launches say: split at multiples of `keys`.
void expect_fixed(const Split& split, std::vector<TestLaunch> chain, Emulation emulation) {
  for (TestLaunch& launch : chain) launch.sequence_keys = launch.problem.seq_kv;
  emulation.deterministic = true;
  expect_right(chain, emulation);
  EXPECT_EQ(emulated_split(), split);
}

/// Parts of four steps of 80 keys.
TEST(EmulatedFixedParts, AndPackedHeads) {
  const OracleProblem p = few_rows(5, 1301, 256);
  expect_fixed({5, 1, 320}, {make_launch(p, one_segment(p), kGrid)}, {.sms = 16});
  expect_fixed({5, 2, 320}, {make_launch(p, one_segment(p), kGrid)}, {.seed = 2, .sms = 9});
  expect_fixed({5, 2, 320}, {make_launch(p, one_segment(p), kGrid)},
               {.seed = 3, .sms = 9, .joined = false});
  // Heads of their own, of two query tiles; f16 with a softcap.
  OracleProblem tall = few_rows(130, 1301, 256, 2, 2);
  tall.dtype = DType::f16;
  tall.softcap = 5.0;
  expect_fixed({5, 1, 320}, {make_launch(tall, one_segment(tall), kGrid)}, {.sms = 8});
}

/// Query tiles that have no key of some parts, in the middle and at the end.
TEST(EmulatedFixedParts, ThatAreNotThere) {
  OracleProblem p = few_rows(140, 1000, 256, 1, 1);
  Mask::Rows rows;
  for (std::int64_t i = 0; i < 140; ++i) {
    rows.intervals.push_back(i < 128 ? RowIntervals{KeyInterval{3, 90}, KeyInterval{700, 990}}
                                     : RowIntervals{KeyInterval{330, 500}});
  }
  rows.intervals[7] = {KeyInterval{650, 690}};
  rows.intervals[9] = {};
  p.terms = {rows};
  expect_fixed({4, 1, 320}, {make_launch(p, one_segment(p), {128, 80})}, {.sms = 3});
}

/// Segments off the grid, strides, positions that fall: all keys are of one part, each once.
TEST(EmulatedFixedParts, OfOtherSegments) {
  const OracleProblem p = few_rows(5, 1301, 256);
  expect_fixed({5, 2, 320},
               {make_launch(p, segments_cut_at(1301, {1, 8, 8, 77, 330, 1000}), kGrid)},
               {.sms = 9});
  expect_fixed({5, 2, 320}, {make_launch(p, striped_segments(1301, 3), kGrid)}, {.sms = 9});
  expect_fixed({5, 2, 320},
               {make_launch(p, {{0, 600, 1, 701}, {701, 0, 1, 400}, {1101, 400, 1, 200}}, kGrid)},
               {.sms = 9});
}

TEST(EmulatedFixedParts, Resume) {
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
    expect_fixed({5, 1, 320}, chain, {.sms = 11});
  }
}

TEST(EmulatedFixedParts, OfLateKeys) {
  const OracleProblem p = few_rows(3, 1000, 256);
  std::vector<std::uint32_t> flags{0, 0, 1};
  auto keys = segments_cut_at(1000, {320, 720});
  for (std::size_t i = 0; i < keys.size(); ++i) keys[i].ready = &flags[i];
  expect_fixed({4, 2, 320}, {make_launch(p, keys, kGrid)},
               {.sms = 7, .late = {[&] { flags[0] = 7; }, [&] { flags[1] = 7; }}});
}

/// Packed or not, with other rows or alone, and where some of the steps before are listed or are
/// not: a row's bits are the same.
TEST(EmulatedFixedParts, HaveTheBitsOfRows) {
  OracleProblem p = few_rows(5, 1301, 256, 2, 1);
  p.softmax_scale = 0.3;
  Mask::Rows rows;
  rows.intervals.assign(5, {KeyInterval{0, 1301}});
  rows.intervals[2] = {KeyInterval{330, 1000}};
  rows.intervals[3] = {KeyInterval{700, 701}, KeyInterval{1290, 1300}};
  p.terms = {rows};
  const OracleInputs inputs = random_inputs(p, 5);
  const auto run = [&](TestLaunch launch, std::int32_t group) {
    return run_kernel(emulated_hopper({.sms = 5, .split = Split{5, group, 320}}), {launch}, inputs,
                      {.gap = 8, .gap_step = 8, .backward = false})
        .values;
  };
  const OracleResult packed = run(every_tile(p, {128, 80}), 2);
  const OracleResult own = run(make_launch(p, one_segment(p), {1, 80}), 1);
  EXPECT_EQ(packed.out, own.out);
  EXPECT_EQ(packed.lse, own.lse);
}

}  // namespace
}  // namespace annulus::testing
