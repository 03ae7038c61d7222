// Compiled masks against the brute-force predicate.

#include "attention/bands.h"
#include "tests/attention/brute_mask.h"
#include "tests/attention/random_request.h"

#include <annulus/error.h>
#include <annulus/reference.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace annulus {
namespace {

using attn::Band;
using test::BruteMask;
using test::Random;

constexpr int kCases = 1500;

std::string words(const Problem& p) {
  return fmt::format("mask {} seq {} seq_kv {}", p.mask.name(), p.seq, *p.seq_kv);
}

void expect_valid(const Band& band, std::int64_t seq_kv) {
  ASSERT_GT(band.rows(), 0);
  ASSERT_LE(band.count, 2);
  for (std::int64_t r = 0; r < band.rows(); ++r) {
    std::int64_t last = -1;
    for (std::size_t i = 0; i < static_cast<std::size_t>(band.count); ++i) {
      const attn::AffineInterval& x = band.intervals[i];
      ASSERT_GT(x.lo.at(r), last) << "intervals ascend and do not touch";
      ASSERT_LT(x.lo.at(r), x.hi.at(r));
      last = x.hi.at(r);
      ASSERT_TRUE((x.lo.step == 0 || x.lo.step == 1) && (x.hi.step == 0 || x.hi.step == 1));
    }
    ASSERT_LE(last, seq_kv);
  }
}

void expect_valid(const std::vector<Band>& bands, const Problem& p) {
  std::int64_t next = 0;
  for (const Band& band : bands) {
    ASSERT_EQ(band.begin, next);
    ASSERT_NO_FATAL_FAILURE(expect_valid(band, *p.seq_kv));
    next = band.end;
  }
  ASSERT_EQ(next, p.seq);
}

std::vector<KeyInterval> nonempty(const RowIntervals& row) {
  std::vector<KeyInterval> runs;
  for (const KeyInterval& k : row) {
    if (k.begin < k.end) runs.push_back(k);
  }
  return runs;
}

TEST(CompileMask, EqualsThePredicateForRandomMasks) {
  int beyond = 0;
  for (std::uint64_t seed = 0; seed < kCases; ++seed) {
    Random random(seed);
    const Problem p = test::random_problem(random, 60, 3);
    SCOPED_TRACE(fmt::format("seed {}: {}", seed, words(p)));
    const BruteMask brute(p);
    if (brute.most_runs() > 2) {
      EXPECT_THROW(attn::compile_bands(p), Unsupported);
      ++beyond;
      continue;
    }
    const std::vector<Band> bands = attn::compile_bands(p);
    ASSERT_NO_FATAL_FAILURE(expect_valid(bands, p));
    const std::vector<RowIntervals> rows = compile_mask(p);
    ASSERT_EQ(static_cast<std::int64_t>(rows.size()), p.seq);
    for (std::int64_t i = 0; i < p.seq; ++i) {
      ASSERT_EQ(nonempty(rows[static_cast<std::size_t>(i)]), brute.runs(i)) << "query " << i;
    }
    const std::int64_t begin = random.between(0, p.seq);
    const std::int64_t end = random.between(begin, p.seq);
    std::int64_t pairs = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      for (const KeyInterval& k : brute.runs(i)) pairs += k.end - k.begin;
    }
    EXPECT_EQ(attn::count_pairs(bands, begin, end), pairs);
    EXPECT_EQ(attn::count_pairs(bands, 0, p.seq), brute.pairs());
  }
  EXPECT_GT(beyond, 0) << "no case was beyond two intervals";
}

TEST(CompileMask, EmptyIntervalsAreZeroZeroAndComeLast) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    Random random(seed);
    Problem p = test::random_problem(random, 30, 1);
    for (const RowIntervals& row : compile_mask(p)) {
      EXPECT_TRUE(row[0] != KeyInterval{} || row[1] == KeyInterval{}) << "seed " << seed;
      for (const KeyInterval& k : row) EXPECT_TRUE(k.begin < k.end || k == KeyInterval{});
    }
  }
}

TEST(CompileBands, StaysSmallWhereBoundsMoveEvenly) {
  Problem p;
  p.seq = 100000;
  p.mask = Mask::causal();
  EXPECT_EQ(attn::compile_bands(resolved(p)).size(), 1U);
  p.mask = Mask::causal() & Mask::window(1000);
  EXPECT_LE(attn::compile_bands(resolved(p)).size(), 3U);
  p.mask = Mask::documents({40000, 0, 60000}) & Mask::window(1000, 0);
  EXPECT_LE(attn::compile_bands(resolved(p)).size(), 6U);
}

TEST(CompileBands, RowsOfAMovingWindowBecomeFewBands) {
  std::vector<RowIntervals> rows;
  for (std::int64_t i = 0; i < 1000; ++i) {
    rows.push_back({{{0, 4}, {i + 8, i + 20}}});
  }
  Problem p;
  p.seq = 1000;
  p.seq_kv = 1020;
  p.mask = Mask::rows(rows);
  EXPECT_LE(attn::compile_bands(resolved(p)).size(), 2U);
}

TEST(CompileBands, RefusesARowOfThreeIntervals) {
  Problem p;
  p.seq = 1;
  p.seq_kv = 10;
  p.mask = Mask::rows({{{{0, 4}, {5, 10}}}}) & Mask::rows({{{{1, 2}, {3, 7}}}});
  try {
    attn::compile_bands(resolved(p));
    FAIL() << "three intervals were taken";
  } catch (const Unsupported& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("query 0"));
  }
}

TEST(CompileBands, TakesThreeIntervalsThatALaterTermCutsToTwo) {
  const Mask three = Mask::rows({{{{0, 4}, {5, 10}}}}) & Mask::rows({{{{1, 2}, {3, 7}}}});
  Problem p;
  p.seq = 1;
  p.seq_kv = 10;
  for (const Mask& mask : {three & Mask::window(-1, 3, CausalAlign::top_left),
                           three & Mask::rows({{{{0, 5}, {0, 0}}}})}) {
    p.mask = mask;
    const auto rows = compile_mask(p);
    EXPECT_EQ(rows[0], (RowIntervals{{{1, 2}, {3, 4}}}));
  }
}

}  // namespace
}  // namespace annulus
