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

/// What row r of a band sees: its intervals and its fixed keys.
std::vector<KeyInterval> keys_of(const Band& band, std::int64_t r) {
  std::vector<KeyInterval> keys(band.fixed_keys().begin(), band.fixed_keys().end());
  for (std::size_t i = 0; i < static_cast<std::size_t>(band.count); ++i) {
    keys.push_back({band.intervals[i].lo.at(r), band.intervals[i].hi.at(r)});
  }
  if (band.fixed) std::ranges::sort(keys, {}, &KeyInterval::begin);
  return keys;
}

void expect_valid(const Band& band, std::int64_t seq_kv) {
  ASSERT_GT(band.rows(), 0);
  ASSERT_LE(band.count, 2);
  for (std::size_t i = 0; i < static_cast<std::size_t>(band.count); ++i) {
    const attn::AffineInterval& x = band.intervals[i];
    ASSERT_TRUE((x.lo.step == 0 || x.lo.step == 1) && (x.hi.step == 0 || x.hi.step == 1));
  }
  for (std::int64_t r = 0; r < band.rows(); ++r) {
    const std::vector<KeyInterval> keys = keys_of(band, r);
    ASSERT_EQ(keys.size() > 2, band.fixed != nullptr);
    std::int64_t last = -1;
    for (const KeyInterval& k : keys) {
      ASSERT_GT(k.begin, last) << "intervals ascend and do not touch";
      ASSERT_LT(k.begin, k.end);
      last = k.end;
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

std::vector<KeyInterval> row_of(const KeyLists& rows, std::int64_t row) {
  return {rows.row(row).begin(), rows.row(row).end()};
}

TEST(CompileMask, EqualsThePredicateForRandomMasks) {
  int beyond = 0;
  for (std::uint64_t seed = 0; seed < kCases; ++seed) {
    Random random(seed);
    const Problem p = test::random_problem(random, 60, 3);
    SCOPED_TRACE(fmt::format("seed {}: {}", seed, words(p)));
    const BruteMask brute(p);
    if (brute.most_runs() > 2) ++beyond;
    const std::vector<Band> bands = attn::compile_bands(p);
    ASSERT_NO_FATAL_FAILURE(expect_valid(bands, p));
    const KeyLists rows = compile_mask(p);
    ASSERT_EQ(rows.rows(), p.seq);
    for (std::int64_t i = 0; i < p.seq; ++i) {
      ASSERT_EQ(row_of(rows, i), brute.runs(i)) << "query " << i;
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
  EXPECT_GT(beyond, kCases / 10) << "few cases were beyond two intervals";
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

TEST(CompileBands, ReturningSegmentsBecomeFewBands) {
  std::vector<std::int64_t> ids;
  for (std::int64_t i = 0; i < 12000; ++i) ids.push_back(i / 1000 % 3);  // each comes four times
  Problem p;
  p.seq = 12000;
  p.mask = Mask::segments(ids);
  EXPECT_EQ(attn::compile_bands(resolved(p)).size(), 12U);
  p.mask = p.mask & Mask::causal();  // the last interval moves with the row
  const std::vector<Band> bands = attn::compile_bands(resolved(p));
  EXPECT_EQ(bands.size(), 12U);
  EXPECT_EQ(bands.back().count, 1);
  EXPECT_EQ(bands.back().fixed_keys().size(), 3U);
}

TEST(CompileBands, SegmentsThatDoNotReturnAreBandsOfOneInterval) {
  std::vector<std::int64_t> ids(100000, 7);
  std::fill(ids.begin() + 60000, ids.begin() + 99000, 0);
  std::fill(ids.begin() + 99000, ids.end(), -1);
  Problem p;
  p.seq = 100000;
  p.mask = Mask::causal() & Mask::segments(ids);
  const std::vector<Band> bands = attn::compile_bands(resolved(p));
  ASSERT_EQ(bands.size(), 3U);
  EXPECT_EQ(bands[2].count, 0) << "padding sees nothing";
}

TEST(CompileBands, RefusesAMaskThatWouldNotFitMemory) {
  std::vector<std::int64_t> ids(1 << 15);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int64_t>(i % 2);
  Problem p;
  p.seq = static_cast<std::int64_t>(ids.size());
  p.mask = Mask::segments(ids);
  try {
    attn::compile_bands(resolved(p));
    FAIL() << "2^15 rows of 2^14 intervals were taken";
  } catch (const Unsupported& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("see more than 67108864 key intervals"));
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
    EXPECT_EQ(row_of(compile_mask(p), 0), (std::vector<KeyInterval>{{1, 2}, {3, 4}}));
  }
}

}  // namespace
}  // namespace annulus
