// The corners of docs/moe.md, by its letters; placement's, losses' and capacity's are in their
// files.
#include "tests/moe/oracle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

namespace annulus::moe::testing {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Outcome {
  Routing routing;
  RouterStatus status;
  std::vector<float> dlogits;
};

/// Forward, then backward of ones, into poison.
Outcome run(const RouterConfig& config, const std::vector<float>& logits,
            const std::vector<float>& bias = {}, const std::vector<std::uint8_t>& padding = {}) {
  Outcome o;
  o.routing.weights.assign(9999, kNaN);
  const RouterInput input{.logits = logits, .bias = bias, .padding = padding};
  Router router(config);
  router.forward(input, o.routing, o.status);
  EXPECT_NO_THROW(check(o.routing));  // different ids, in range
  o.dlogits.assign(logits.size(), kNaN);
  std::vector<float> ones(o.routing.indices.size());
  for (std::size_t i = 0; i < ones.size(); ++i) ones[i] = static_cast<float>(i + 1);
  router.backward(input, o.routing, o.routing, ones, o.dlogits);
  for (const float d : o.dlogits) EXPECT_TRUE(std::isfinite(d));
  for (const float w : o.routing.weights) EXPECT_TRUE(std::isfinite(w));
  return o;
}

std::vector<RouterConfig> kinds(std::int64_t experts, std::int64_t k) {
  RouterConfig v3 = RouterConfig::deepseek_v3(experts, k);
  v3.groups = v3.groups_kept = v3.group_top = 1;
  return {RouterConfig::mixtral(experts, k), RouterConfig::qwen3(experts, k),
          RouterConfig::qwen3(experts, k, false), v3};
}

TEST(RouterCorner, A_TiesGoToTheLowerIndex) {
  for (const RouterConfig& c : kinds(7, 3)) {
    EXPECT_THAT(run(c, std::vector<float>(7, 0.25F)).routing.indices, ElementsAre(0, 1, 2));
    EXPECT_THAT(run(c, {0, 1, 0, 1, 1, 0, 1}).routing.indices, ElementsAre(1, 3, 4));
    EXPECT_THAT(run(c, {-0.0F, 0.0F, -0.0F, 0, 0, 0, 0}).routing.indices, ElementsAre(0, 1, 2));
  }
  // Groups of equal scores: 0 to 3 of 8 stay, and of 32 experts each the first 8 of group 0.
  EXPECT_THAT(run(RouterConfig::deepseek_v3(), std::vector<float>(256, 1.5F)).routing.indices,
              ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  RouterConfig spread = RouterConfig::deepseek_v3(16, 8);  // 4 groups of 2: all of groups 0 to 3
  EXPECT_THAT(run(spread, std::vector<float>(16, -2.0F)).routing.indices,
              ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
}

TEST(RouterCorner, B_NoTokens) {
  for (const RouterConfig& c : kinds(5, 2)) {
    const Outcome o = run(c, {});
    EXPECT_EQ(o.routing.tokens, 0);
    EXPECT_EQ(o.routing.k, 2);
    EXPECT_TRUE(o.routing.indices.empty());
    EXPECT_EQ(o.status.tokens, 0);
  }
}

TEST(RouterCorner, E_ANaNLogitIsNotSelectedAndSilencesItsToken) {
  for (const RouterConfig& c : kinds(5, 2)) {
    const Outcome o = run(c, {9, kNaN, 1, 2, kNaN, /**/ 0, 1, 2, 3, 4});
    EXPECT_THAT(o.routing.indices, ElementsAre(0, 3, 4, 3));
    EXPECT_EQ(o.routing.weights[0], 0.0F);
    EXPECT_EQ(o.routing.weights[1], 0.0F);
    EXPECT_GT(o.routing.weights[2], 0.0F);
    EXPECT_EQ(o.status.tokens, 2);
    EXPECT_EQ(o.status.bad_tokens, 1);
    EXPECT_THAT(std::span(o.dlogits).first(5), Each(0.0F));
  }
}

TEST(RouterCorner, E_AllNaN) {
  for (const RouterConfig& c : kinds(5, 3)) {
    const Outcome o = run(c, std::vector<float>(5, kNaN));
    EXPECT_THAT(o.routing.indices, ElementsAre(0, 1, 2));
    EXPECT_THAT(o.routing.weights, Each(0.0F));
    EXPECT_EQ(o.status.bad_tokens, 1);
  }
}

TEST(RouterCorner, E_NaNsStayInsideTheKeptGroups) {
  RouterConfig c = RouterConfig::deepseek_v3(8, 4);
  c.groups = 4;
  c.groups_kept = 2;  // groups 1 and 3 win; their NaN are taken before other groups' numbers
  const Outcome o = run(c, {-3, -3, 5, kNaN, -3, -3, 6, kNaN}, {1, 1, 9, 9, 1, 1, 9, 9});
  const std::set<std::int32_t> ids(o.routing.indices.begin(), o.routing.indices.end());
  // With one NaN each, groups 1 and 3 sum to -inf: 0 and 2 stay.
  EXPECT_THAT(ids, ElementsAre(0, 1, 4, 5));
  RouterConfig best = c;
  best.group_top = 1;
  const Outcome p = run(best, {-3, -3, 5, kNaN, -3, -3, 6, kNaN}, {1, 1, 9, 9, 1, 1, 9, 9});
  EXPECT_THAT(p.routing.indices, ElementsAre(6, 2, 3, 7));
  EXPECT_THAT(p.routing.weights, Each(0.0F));
}

TEST(RouterCorner, E_PlusInfinity) {
  const std::vector<float> logits{0, kInfinity, 1, 2};
  RouterConfig v3 = kinds(4, 2).back();
  const Outcome sigmoids = run(v3, logits);
  EXPECT_THAT(sigmoids.routing.indices, ElementsAre(1, 3));
  EXPECT_EQ(sigmoids.status.bad_tokens, 0);
  const double s = 1 / (1 + std::exp(-2.0));
  EXPECT_NEAR(sigmoids.routing.weights[0], 2.5 / (1 + s), 1e-6);
  EXPECT_EQ(sigmoids.dlogits[1], 0.0F);  // saturated
  for (const RouterConfig& c : {RouterConfig::mixtral(4), RouterConfig::qwen3(4, 2, false)}) {
    const Outcome o = run(c, logits);
    EXPECT_THAT(o.routing.indices, ElementsAre(1, 3));
    EXPECT_THAT(o.routing.weights, ElementsAre(0.0F, 0.0F));
    EXPECT_EQ(o.status.bad_tokens, 1);
    EXPECT_THAT(o.dlogits, Each(0.0F));
  }
}

TEST(RouterCorner, F_FewerThanKFiniteCandidates) {
  const std::vector<float> logits{-kInfinity, -kInfinity, 3, -kInfinity, -kInfinity};
  for (const RouterConfig& c : kinds(5, 3)) {
    const Outcome o = run(c, logits);
    EXPECT_THAT(o.routing.indices, ElementsAre(2, 0, 1));
    EXPECT_NEAR(o.routing.weights[0], c.scale, 1e-6);  // an expert at -inf weighs nothing
    EXPECT_EQ(o.routing.weights[1], 0.0F);
    EXPECT_EQ(o.status.bad_tokens, 0);
  }
  for (const RouterConfig& c : kinds(5, 3)) {
    const Outcome none = run(c, std::vector<float>(5, -kInfinity));
    EXPECT_THAT(none.routing.indices, ElementsAre(0, 1, 2));
    EXPECT_THAT(none.routing.weights, Each(0.0F));
    // sigmoids are 0 and 0 / 1e-20 is 0; a softmax of nothing is no number
    EXPECT_EQ(none.status.bad_tokens, c.score == Score::sigmoid ? 0 : 1);
  }
}

TEST(RouterCorner, F_NothingToDivideBy) {
  RouterConfig c = kinds(5, 3).back();
  c.epsilon = 0;  // DeepSeek's inference code
  const Outcome o = run(c, std::vector<float>(5, -kInfinity));
  EXPECT_THAT(o.routing.weights, Each(0.0F));
  EXPECT_EQ(o.status.bad_tokens, 1);
}

TEST(RouterCorner, H_BiasMayPushScoresBelowZero) {
  RouterConfig c = RouterConfig::deepseek_v3(8, 2);
  c.groups = 4;
  c.groups_kept = 1;
  const Outcome o = run(c, {0, 0, 0, 0, 1, 1, 0, 0}, {-5, -5, -5, -5, -4, -4, -5, -5});
  EXPECT_THAT(o.routing.indices, ElementsAre(4, 5));
  EXPECT_NEAR(o.routing.weights[0], 1.25, 1e-6);
}

TEST(RouterCorner, H_InfiniteBiasIsNoTrap) {
  RouterConfig c = RouterConfig::deepseek_v3(8, 2);
  c.groups = 4;
  c.groups_kept = 1;
  const Outcome o =
      run(c, std::vector<float>(8, 0.5F), {kInfinity, -kInfinity, 0, 0, 0, 0, kNaN, kNaN});
  EXPECT_THAT(o.routing.indices, ElementsAre(2, 3));
}

TEST(RouterCorner, K_OneSigmoidIsNotNormalised) {
  RouterConfig c = RouterConfig::deepseek_v3(8, 1);
  c.group_top = 1;
  const Outcome o = run(c, {0, 0, 0, 1, 0, 0, 0, 0});
  const double s = 1 / (1 + std::exp(-1.0));
  EXPECT_NEAR(o.routing.weights[0], 2.5 * s, 1e-6);
  EXPECT_NEAR(o.dlogits[3], 2.5 * s * (1 - s), 1e-6);  // or the router would never learn
}

TEST(RouterCorner, L_PaddingIsNoToken) {
  for (const RouterConfig& c : kinds(3, 2)) {
    const Outcome o = run(c, {1, 2, 3, kNaN, 5, 6, 7, 9, 8}, {}, {0, 1, 0});
    EXPECT_THAT(o.routing.indices, ElementsAre(2, 1, -1, -1, 1, 2));
    EXPECT_EQ(o.routing.weights[2], 0.0F);
    EXPECT_EQ(o.routing.weights[3], 0.0F);
    EXPECT_EQ(o.status.tokens, 2);
    EXPECT_EQ(o.status.bad_tokens, 0);
    EXPECT_THAT(std::span(o.dlogits).subspan(3, 3), Each(0.0F));
    std::vector<std::int64_t> counts;
    count_selections(o.routing, counts);
    EXPECT_THAT(counts, ElementsAre(0, 2, 2));
  }
}

TEST(RouterCorner, SaturatedLogitsKeepTheirGradientFinite) {
  for (const RouterConfig& c : kinds(4, 2)) run(c, {1e30F, -1e30F, 80, -80});
  for (const RouterConfig& c : kinds(4, 2)) run(c, {-200, -201, -199, -300});
}

}  // namespace
}  // namespace annulus::moe::testing
