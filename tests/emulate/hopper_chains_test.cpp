// The emulated Hopper forward over parts of the keys in any order, and what every head dim must do:
// masks, fewer and more keys than queries, no key, large logits.
#include "tests/emulate/forward_check.h"
#include "tests/support/launch.h"
#include "tests/support/mask_list.h"
#include "tests/support/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace annulus::testing {
namespace {

using attn::KeySegment;

constexpr std::pair<std::int64_t, std::int64_t> kDims[] = {{128, 128}, {64, 64},   {96, 96},
                                                           {192, 128}, {192, 192}, {256, 256}};

std::vector<KeySegment> random_segments(std::int64_t keys, std::mt19937_64& random) {
  std::vector<std::int64_t> cuts(static_cast<std::size_t>(random_between(random, 1, 5)));
  for (std::int64_t& cut : cuts) cut = random_between(random, 0, keys);
  std::sort(cuts.begin(), cuts.end());
  auto segments = segments_cut_at(keys, cuts);
  std::shuffle(segments.begin(), segments.end(), random);
  return segments;
}

/// One to three segments a launch, at least two launches.
std::vector<TestLaunch> random_chain(const OracleProblem& p, std::mt19937_64& random) {
  const auto segments = random_segments(p.seq_kv, random);
  std::vector<TestLaunch> chain;
  for (std::size_t begin = 0; begin < segments.size();) {
    const auto most = std::min<std::size_t>(3, segments.size() - begin - (begin == 0 ? 1 : 0));
    const auto count =
        static_cast<std::size_t>(random_between(random, 1, static_cast<std::int64_t>(most)));
    const auto first = segments.begin() + static_cast<std::ptrdiff_t>(begin);
    chain.push_back(make_launch(p, {first, first + static_cast<std::ptrdiff_t>(count)}, kGrid));
    begin += count;
  }
  return chain;
}

/// Random cuts, some of no key, in random order, under masks that leave some parts to nobody.
TEST(EmulatedHopperChains, RandomCutsInRandomOrder) {
  int nobodys = 0;
  for (std::uint64_t seed = 1; seed <= 24; ++seed) {
    std::mt19937_64 random(seed);
    SCOPED_TRACE("random chain of seed " + std::to_string(seed));
    const auto& [dim, dim_v] = kDims[seed % std::size(kDims)];
    OracleProblem p = of_dims(problem_of(random_between(random, 1, 280), dim), dim_v);
    p.heads = 1;
    p.seq_kv = random_between(random, 60, 300);
    switch (seed % 4) {
      case 0:
        p.terms.clear();
        break;
      case 1:
        p.seq = random_between(random, 1, 70);
        p.terms = {Mask::Causal{CausalAlign::top_left}};
        break;
      case 2:
        p.terms = {Mask::Causal{}, Mask::Window{random_between(random, 0, 60), 0}};
        break;
      default:
        break;
    }
    const auto chain = random_chain(p, random);
    for (const TestLaunch& launch : chain) nobodys += launch.tiles.empty() ? 1 : 0;
    expect_right(chain, {.seed = seed, .sms = static_cast<int>(random_between(random, 1, 4))});
  }
  EXPECT_GT(nobodys, 4);
}

/// A chain of three parts, of which every third row sees not the first, not the second or not the
/// third, and every seventh none; and chains whose first, second or last launch shows nothing.
TEST(EmulatedHopperChains, RowsThatSeeNothingOfAPart) {
  for (const auto& [dim, dim_v] : kDims) {
    OracleProblem p = of_dims(problem_of(150, dim), dim_v);
    p.heads = 1;
    const std::vector<std::int64_t> ends{0, 40, 110, 150};
    for (std::size_t nobodys = 0; nobodys < 4; ++nobodys) {
      Mask::Rows rows;
      for (std::size_t i = 0; i < 150; ++i) {
        std::vector<bool> seen(3, i % 7 != 0);
        seen[i % 3] = false;
        if (nobodys < 3) seen[nobodys] = false;
        RowIntervals row{};
        std::size_t count = 0;
        for (std::size_t part = 0; part < 3; ++part) {
          if (seen[part]) row.at(count++) = {ends[part], ends[part + 1]};
        }
        rows.intervals.push_back(row);
      }
      p.terms = {rows};
      std::vector<TestLaunch> chain;
      for (const KeySegment& segment : segments_cut_at(150, {40, 110})) {
        chain.push_back(make_launch(p, {segment}, kGrid));
      }
      for (std::size_t part = 0; part < 3; ++part) {
        EXPECT_EQ(chain[part].tiles.empty(), part == nobodys);
      }
      SCOPED_TRACE("nobody sees part " + std::to_string(nobodys));
      expect_right(chain, {.seed = nobodys + 1});
    }
  }
}

class HopperDims : public ::testing::TestWithParam<std::pair<std::int64_t, std::int64_t>> {
 protected:
  static OracleProblem problem(std::int64_t seq) {
    return of_dims(problem_of(seq, GetParam().first), GetParam().second);
  }
};

TEST_P(HopperDims, EveryMask) {
  std::uint64_t seed = 0;
  for (const auto& terms : masks_of_97()) {
    OracleProblem p = problem(97);
    p.terms = terms;
    expect_right(p, {.seed = ++seed});
  }
}

TEST_P(HopperDims, OtherNumbersOfKeys) {
  std::uint64_t seed = 0;
  for (const std::int64_t keys : {0, 2, 30, 200}) {
    for (const CausalAlign align : {CausalAlign::bottom_right, CausalAlign::top_left}) {
      OracleProblem p = problem(97);
      p.seq_kv = keys;
      p.terms = {Mask::Causal{align}};
      expect_right(p, {.seed = ++seed});
      p.terms = {Mask::Window{9, 2, align}};
      expect_right(p, {.seed = ++seed});
    }
  }
}

TEST_P(HopperDims, ScalesAndLargeLogits) {
  OracleProblem p = problem(150);
  const double root = std::sqrt(static_cast<double>(p.head_dim));
  for (const double scale : {0.001, 0.7, 100.0 / root, 1e4 / root}) {
    p.softmax_scale = scale;
    expect_right(p);
  }
  expect_right({make_launch(p, segments_cut_at(150, {40}), kGrid)});
}

INSTANTIATE_TEST_SUITE_P(Emulated, HopperDims, ::testing::ValuesIn(kDims), [](const auto& which) {
  return std::to_string(which.param.first) + "_" + std::to_string(which.param.second);
});

}  // namespace
}  // namespace annulus::testing
