// merge(): the online softmax of partial results.
#include "attention/kernels/state.h"
#include "tests/kernels/kernel_checks.h"
#include "tests/support/random.h"

#include <annulus/attention.h>
#include <annulus/error.h>

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <limits>
#include <numeric>
#include <random>

namespace annulus::testing {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();

struct State {
  std::vector<float> o;
  float lse = kNothing;

  StateView view() { return {o.data(), &lse, 1, static_cast<std::int64_t>(o.size())}; }
  bool operator==(const State&) const = default;
};

State merged(State a, State b) {
  merge(a.view(), b.view());
  return a;
}

TEST(Merge, LeavesAStateAsItIsWhenMergedWithNothing) {
  const State some{{1.0F, -2.5F, 3.0F}, 4.5F};
  const State nothing{{0.0F, 0.0F, 0.0F}, kNothing};
  EXPECT_EQ(merged(some, nothing), some);
  EXPECT_EQ(merged(nothing, some), some);
  EXPECT_EQ(merged(nothing, nothing), nothing);
}

TEST(Merge, AveragesStatesOfEqualWeight) {
  const State result = merged({{1.0F}, 2.0F}, {{3.0F}, 2.0F});
  EXPECT_FLOAT_EQ(result.o[0], 2.0F);
  EXPECT_FLOAT_EQ(result.lse, 2.0F + std::log(2.0F));
}

TEST(Merge, KeepsTheHeavierStateForLogitsOfTenThousand) {
  const State heavy{{1.0F}, 1e4F};
  const State light{{-7.0F}, -1e4F};
  EXPECT_EQ(merged(heavy, light), heavy);
  EXPECT_EQ(merged(light, heavy), heavy);
}

TEST(Merge, SaysWhichShapesDiffer) {
  State a{{1.0F, 2.0F}, 0.0F};
  State b{{1.0F}, 0.0F};
  EXPECT_THROW(merge(a.view(), b.view()), InvalidArgument);
}

/// Merges [first, last) by cutting at random places, the two halves in random order.
State merged_somehow(const std::vector<State>& parts, std::size_t first, std::size_t last,
                     std::mt19937_64& generator) {
  if (last - first == 1) return parts[first];
  const auto cut = static_cast<std::size_t>(random_between(
      generator, static_cast<std::int64_t>(first) + 1, static_cast<std::int64_t>(last) - 1));
  State low = merged_somehow(parts, first, cut, generator);
  State high = merged_somehow(parts, cut, last, generator);
  return random_between(generator, 0, 1) == 0 ? merged(std::move(low), std::move(high))
                                              : merged(std::move(high), std::move(low));
}

std::vector<State> random_parts(std::size_t count, double logit_scale, std::mt19937_64& generator) {
  std::normal_distribution<double> normal;
  std::vector<State> parts;
  for (std::size_t i = 0; i < count; ++i) {
    State part{{0.0F, 0.0F, 0.0F}, kNothing};
    if (i % 7 != 3) {
      for (float& value : part.o) value = static_cast<float>(normal(generator));
      part.lse = static_cast<float>(logit_scale * normal(generator));
    }
    parts.push_back(part);
  }
  return parts;
}

/// In float64, all at once.
std::vector<double> expected(const std::vector<State>& parts, double& lse) {
  double max = -HUGE_VAL;
  for (const State& part : parts) max = std::max(max, static_cast<double>(part.lse));
  double sum = 0.0;
  std::vector<double> o(3, 0.0);
  for (const State& part : parts) {
    const double weight = std::exp(static_cast<double>(part.lse) - max);
    sum += weight;
    for (std::size_t d = 0; d < 3; ++d) o[d] += weight * static_cast<double>(part.o[d]);
  }
  for (double& value : o) value /= sum;
  lse = max + std::log(sum);
  return o;
}

RC_GTEST_PROP(Merge, GivesOneResultForAnyOrderAndGrouping, (std::uint64_t seed)) {
  std::mt19937_64 generator(seed);
  for (const double scale : {1.0, 10.0, 1e4}) {
    std::vector<State> parts = random_parts(1000, scale, generator);
    double lse = 0.0;
    const std::vector<double> o = expected(parts, lse);
    std::shuffle(parts.begin(), parts.end(), generator);
    const State random = merged_somehow(parts, 0, parts.size(), generator);
    const State chain = std::accumulate(parts.begin() + 1, parts.end(), parts.front(), merged);
    for (const State& state : {random, chain}) {
      RC_ASSERT(std::abs(static_cast<double>(state.lse) - lse) <= 4e-5 + 1e-6 * std::abs(lse));
      for (std::size_t d = 0; d < 3; ++d) {
        RC_ASSERT(std::abs(static_cast<double>(state.o[d]) - o[d]) <= 4e-5);
      }
    }
  }
}

}  // namespace
}  // namespace annulus::testing
