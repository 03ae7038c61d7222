// Bias update, jitter and capacity.
#include "tests/moe/oracle.h"

#include <annulus/error.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

namespace annulus::moe::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(BiasUpdate, MovesTowardsTheMeanAndStaysWhereEqual) {
  std::vector<float> bias{0, 0.5F, 0, -1};
  update_bias(std::vector<std::int64_t>{0, 10, 5, 5}, 0.25F, bias);
  EXPECT_THAT(bias, ElementsAre(0.25F, 0.25F, 0.0F, -1.0F));
  update_bias(std::vector<std::int64_t>{1, 0, 0, 0}, 0.25F, bias);  // the mean is no integer
  EXPECT_THAT(bias, ElementsAre(0.0F, 0.5F, 0.25F, -0.75F));
  update_bias(std::vector<std::int64_t>{0, 0, 0, 0}, 0.25F, bias);
  EXPECT_THAT(bias, ElementsAre(0.0F, 0.5F, 0.25F, -0.75F));
  EXPECT_THROW(update_bias(std::vector<std::int64_t>{1}, 0.25F, bias), InvalidArgument);
}

TEST(BiasUpdate, EvensOutASkewedRouter) {
  // Experts 0 and 1 are liked by everyone; the bias alone brings the others in.
  RouterConfig config = RouterConfig::deepseek_v3(8, 2);
  config.groups = config.groups_kept = config.group_top = 1;
  std::mt19937_64 generator(11);
  std::normal_distribution<float> normal(0.0F, 0.3F);
  std::vector<float> logits;
  for (int i = 0; i < 512 * 8; ++i) logits.push_back(normal(generator) + (i % 8 < 2 ? 1.0F : 0.0F));
  std::vector<float> bias(8, 0.0F);
  Router router(config);
  Routing routing;
  RouterStatus status;
  std::vector<std::int64_t> counts;
  double before = 0;
  for (int step = 0; step < 400; ++step) {
    router.forward({.logits = logits, .bias = bias, .padding = {}}, routing, status);
    count_selections(routing, counts);
    if (step == 0) before = load_of(counts).max_over_mean;
    update_bias(counts, 1e-3F, bias);
  }
  EXPECT_GT(before, 3.0);
  EXPECT_LT(load_of(counts).max_over_mean, 1.1);
}

TEST(Jitter, IsAPureFunctionOfSeedTokenAndColumn) {
  constexpr std::int64_t kHidden = 5;
  std::vector<float> whole(7 * kHidden, 2.0F);
  jitter(whole, kHidden, 0.1F, 42);
  std::vector<float> parts(7 * kHidden, 2.0F);
  jitter(std::span(parts).first(3 * kHidden), kHidden, 0.1F, 42);
  jitter(std::span(parts).subspan(3 * kHidden), kHidden, 0.1F, 42, 3);
  EXPECT_EQ(parts, whole);
  const std::set<float> different(whole.begin(), whole.end());
  EXPECT_EQ(different.size(), whole.size());
  std::vector<float> other(7 * kHidden, 2.0F);
  jitter(other, kHidden, 0.1F, 43);
  EXPECT_NE(other, whole);
}

TEST(Jitter, StaysInItsRangeAndIsEven) {
  std::vector<float> x(100000, 1.0F);
  jitter(x, 100, 0.25F, 1);
  double sum = 0;
  double squares = 0;
  for (const float value : x) {
    EXPECT_GE(value, 0.75F);
    EXPECT_LT(value, 1.25F);
    sum += static_cast<double>(value) - 1;
    squares += (static_cast<double>(value) - 1) * (static_cast<double>(value) - 1);
  }
  const auto n = static_cast<double>(x.size());
  EXPECT_NEAR(sum / n, 0, 5 * 0.25 / std::sqrt(3 * n));
  EXPECT_NEAR(squares / n, 0.25 * 0.25 / 3, 0.001);
}

TEST(Jitter, RefusesWhatCannotBe) {
  std::vector<float> x(6);
  EXPECT_THROW(jitter(x, 4, 0.1F, 1), InvalidArgument);
  EXPECT_THROW(jitter(x, 0, 0.1F, 1), InvalidArgument);
  EXPECT_THROW(jitter(x, 3, 1.0F, 1), InvalidArgument);
  EXPECT_THROW(jitter(x, 3, std::numeric_limits<float>::quiet_NaN(), 1), InvalidArgument);
}

/// 4 tokens, 2 of 3 experts each; expert 0 is in all.
Routing crowded() {
  return {.tokens = 4,
          .k = 2,
          .experts = 3,
          .indices = {0, 1, 1, 0, 0, 2, 0, -1},
          .weights = {0.5F, 0.4F, 0.9F, 0.7F, 0.7F, 0.2F, 0.1F, 0}};
}

TEST(Capacity, IsMegatronsAndKnowsNoLimit) {
  const Routing r = crowded();
  EXPECT_EQ(capacity_of({}, r), -1);
  EXPECT_EQ(capacity_of({.factor = 1.0}, r), 3);   // ceil(4 * 2 / 3)
  EXPECT_EQ(capacity_of({.factor = 0.1}, r), 1);   // ceil(0.27)
  EXPECT_EQ(capacity_of({.factor = 99.0}, r), 4);  // a token is at an expert once
  EXPECT_EQ(capacity_of({.factor = 1.5},
                        Routing{.tokens = 0, .k = 2, .experts = 3, .indices = {}, .weights = {}}),
            0);
  EXPECT_THROW(capacity_of({.factor = -1}, r), InvalidArgument);
  EXPECT_THROW(capacity_of({.factor = std::numeric_limits<double>::quiet_NaN()}, r),
               InvalidArgument);
}

TEST(Capacity, DroplessIsTheDefault) {
  Routing kept;
  EXPECT_EQ(apply_capacity({}, crowded(), kept), 0);
  EXPECT_EQ(kept.indices, crowded().indices);
  EXPECT_EQ(kept.weights, crowded().weights);
}

TEST(Capacity, J_PoliciesKeepDifferentPairsAndLeaveTheirWeights) {
  Routing kept;
  // expert 0 has weights .5 .7 .7 .1 of tokens 0 to 3, and 2 places
  EXPECT_EQ(apply_capacity({.factor = 0.5, .policy = DropPolicy::probability}, crowded(), kept), 2);
  EXPECT_THAT(kept.indices, ElementsAre(-1, 1, 1, 0, 0, 2, -1, -1));
  EXPECT_THAT(kept.weights, ElementsAre(0, 0.4F, 0.9F, 0.7F, 0.7F, 0.2F, 0, 0));
  EXPECT_NO_THROW(check(kept));
  EXPECT_EQ(apply_capacity({.factor = 0.5, .policy = DropPolicy::position}, crowded(), kept), 2);
  EXPECT_THAT(kept.indices, ElementsAre(0, 1, 1, 0, -1, 2, -1, -1));
  // one place, a tie: the lower token
  EXPECT_EQ(apply_capacity({.factor = 0.1}, crowded(), kept), 4);
  EXPECT_THAT(kept.indices, ElementsAre(-1, -1, 1, 0, -1, 2, -1, -1));
  Routing here = crowded();  // in place
  EXPECT_EQ(apply_capacity({.factor = 0.1}, here, here), 4);
  EXPECT_EQ(here.indices, kept.indices);
}

TEST(Capacity, WithRoomASecondCallAllocatesNothing) {
  Routing kept;
  CapacityRoom room;
  apply_capacity({.factor = 0.5}, crowded(), kept, &room);
  const Routing once = kept;
  const auto* pairs = room.pairs.data();
  const auto* first = room.first.data();
  const auto* indices = kept.indices.data();
  apply_capacity({.factor = 0.5}, crowded(), kept, &room);
  EXPECT_EQ(kept.indices, once.indices);
  EXPECT_EQ(room.pairs.data(), pairs);
  EXPECT_EQ(room.first.data(), first);
  EXPECT_EQ(kept.indices.data(), indices);
}

TEST(Capacity, RandomRoutingsKeepWhatTheDefinitionKeeps) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    const Case c = random_case(seed);
    SCOPED_TRACE(c.describe());
    Routing r;
    RouterStatus status;
    Router(c.config).forward(c.input(), r, status);
    const Capacity capacity{
        .factor = 0.25 + 0.25 * static_cast<double>(seed % 4),
        .policy = seed % 2 == 0 ? DropPolicy::probability : DropPolicy::position};
    Routing kept;
    const std::int64_t dropped = apply_capacity(capacity, r, kept);
    const std::int64_t most = capacity_of(capacity, r);
    std::int64_t missing = 0;
    for (std::size_t i = 0; i < r.indices.size(); ++i) {
      std::int64_t before = 0;  // pairs of the same expert that come first
      for (std::size_t j = 0; j < r.indices.size(); ++j) {
        if (j == i || r.indices[j] != r.indices[i]) continue;
        const bool first = capacity.policy == DropPolicy::position || r.weights[j] == r.weights[i]
                               ? j < i
                               : r.weights[j] > r.weights[i];
        before += first ? 1 : 0;
      }
      const bool stays = before < most;
      EXPECT_EQ(kept.indices[i], stays ? r.indices[i] : -1);
      EXPECT_EQ(kept.weights[i], stays ? r.weights[i] : 0.0F);
      missing += stays ? 0 : 1;
    }
    EXPECT_EQ(dropped, missing);
  }
}

}  // namespace
}  // namespace annulus::moe::testing
