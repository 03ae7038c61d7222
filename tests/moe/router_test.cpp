// Selection and weights: goldens by hand, and random routers against the float64 oracle.
#include "tests/moe/oracle.h"

#include <annulus/error.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace annulus::moe::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// A Routing full of what must not be left over.
Routing poisoned() {
  return {.tokens = 99,
          .k = 99,
          .experts = 99,
          .indices = std::vector<std::int32_t>(9999, 12345),
          .weights = std::vector<float>(9999, kNaN)};
}

Routing routed(const RouterConfig& config, const RouterInput& input) {
  Routing routing = poisoned();
  RouterStatus status;
  Router(config).forward(input, routing, status);
  EXPECT_EQ(status.bad_tokens, 0);
  return routing;
}

float logit_of(float probability) { return std::log(probability / (1 - probability)); }

TEST(Router, MasksGroupsWithMinusInfinityNotZero) {
  // With 0.0 in masked places, as Hugging Face once had it, negative sums lose to {2, 3}.
  RouterConfig config = RouterConfig::deepseek_v3(4, 2);
  config.groups = 2;
  config.groups_kept = 1;
  std::vector<float> logits;
  for (const float s : {0.6F, 0.5F, 0.4F, 0.3F}) logits.push_back(logit_of(s));
  const std::vector<float> bias{-0.9F, -0.9F, -1.0F, -1.0F};
  const Routing r = routed(config, {.logits = logits, .bias = bias, .padding = {}});
  EXPECT_THAT(r.indices, ElementsAre(0, 1));
  EXPECT_NEAR(r.weights[0], 1.363636, 1e-6);
  EXPECT_NEAR(r.weights[1], 1.136364, 1e-6);
}

TEST(Router, BiasSelectsButDoesNotWeigh) {
  RouterConfig config = RouterConfig::deepseek_v3(8, 2);
  config.groups = config.groups_kept = 1;
  config.group_top = 1;
  std::vector<float> logits(8, 0.0F);
  logits[5] = 3.0F;
  std::vector<float> bias(8, 0.0F);
  bias[2] = 1.0F;
  const Routing r = routed(config, {.logits = logits, .bias = bias, .padding = {}});
  EXPECT_THAT(r.indices, ElementsAre(2, 5));
  const double s2 = 0.5, s5 = 1 / (1 + std::exp(-3.0));
  EXPECT_NEAR(r.weights[0], 2.5 * s2 / (s2 + s5), 1e-6);
  EXPECT_NEAR(r.weights[1], 2.5 * s5 / (s2 + s5), 1e-6);
}

TEST(Router, NamedRoutersByHand) {
  const std::vector<float> logits{0.0F, std::log(3.0F), std::log(6.0F),
                                  0.0F};  // p = .1 .3 .6 .1 / 1.1
  const RouterInput input{.logits = logits, .bias = {}, .padding = {}};
  Routing r = routed(RouterConfig::mixtral(4), input);
  EXPECT_THAT(r.indices, ElementsAre(2, 1));
  EXPECT_NEAR(r.weights[0], 6.0 / 9, 1e-6);
  EXPECT_NEAR(r.weights[1], 3.0 / 9, 1e-6);
  r = routed(RouterConfig::qwen3(4, 2), input);
  EXPECT_NEAR(r.weights[0], 6.0 / 9, 1e-6);
  r = routed(RouterConfig::qwen3(4, 2, false), input);
  EXPECT_THAT(r.indices, ElementsAre(2, 1));
  EXPECT_NEAR(r.weights[0], 6.0 / 11, 1e-6);
  EXPECT_NEAR(r.weights[1], 3.0 / 11, 1e-6);
  r = routed(RouterConfig::switch_transformer(4), input);
  EXPECT_THAT(r.indices, ElementsAre(2));
  EXPECT_NEAR(r.weights[0], 6.0 / 11, 1e-6);
}

TEST(Router, MatchesTheOracle) {
  std::int64_t compared = 0;
  std::int64_t close = 0;
  for (std::uint64_t seed = 1; seed <= 600; ++seed) {
    const Case c = random_case(seed);
    SCOPED_TRACE(c.describe());
    const Routing r = routed(c.config, c.input());
    ASSERT_NO_THROW(check(r));
    for (std::int64_t t = 0; t < c.tokens; ++t) {
      const OracleToken expected = oracle_token(c.config, c.row(t), c.bias);
      if (expected.gap < 1e-6) {
        ++close;
        continue;
      }
      ++compared;
      for (std::int64_t slot = 0; slot < c.config.k; ++slot) {
        const auto pair = static_cast<std::size_t>(t * c.config.k + slot);
        const double weight = expected.weights[static_cast<std::size_t>(slot)];
        ASSERT_EQ(r.indices[pair], expected.chosen[static_cast<std::size_t>(slot)]) << t;
        ASSERT_NEAR(r.weights[pair], weight, 1e-6 * std::max(1.0, weight)) << t;
      }
    }
  }
  EXPECT_GT(compared, 3000);
  EXPECT_LT(close, compared / 50);
}

TEST(Router, ASecondCallIsTheSameBitForBitAndAllocatesNothing) {
  const Case c = random_case(7);
  Router router(c.config);
  Routing first;
  Routing second;
  RouterStatus status;
  router.forward(c.input(), first, status);
  router.forward(c.input(), second, status);
  EXPECT_EQ(first.indices, second.indices);
  EXPECT_EQ(first.weights, second.weights);
  const auto* indices = second.indices.data();
  const auto* weights = second.weights.data();
  router.forward(c.input(), second, status);
  EXPECT_EQ(second.indices.data(), indices);
  EXPECT_EQ(second.weights.data(), weights);
  EXPECT_EQ(status.tokens, 3 * c.tokens);
}

std::string refusal(const RouterConfig& config, const RouterInput& input = {}) {
  try {
    Router router(config);
    Routing routing;
    RouterStatus status;
    router.forward(input, routing, status);
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "none";
}

TEST(Router, RefusesWhatCannotBe) {
  RouterConfig c = RouterConfig::deepseek_v3();
  EXPECT_EQ(refusal(c), "none");
  c.experts = 100;
  EXPECT_EQ(refusal(c), "router: groups 8: 100 experts are no multiple of it");
  c = RouterConfig::deepseek_v3(16, 9);
  EXPECT_EQ(refusal(c), "router: k 9: allowed: 1 to 8 (the experts of the kept groups)");
  c = RouterConfig::deepseek_v3(8, 2);
  EXPECT_THAT(refusal(c), HasSubstr("group_top 2: allowed: 1 to 1"));
  EXPECT_THAT(refusal(RouterConfig::mixtral(4, 5)),
              HasSubstr("k 5: allowed: 1 to 4 (the experts)"));
  EXPECT_THAT(refusal(RouterConfig::mixtral(0)), HasSubstr("0 experts"));
  EXPECT_THAT(refusal(RouterConfig::mixtral(4, 0)), HasSubstr("k 0"));
  c = RouterConfig::qwen3(4, 2);
  c.groups = 2;
  c.groups_kept = 1;
  c.group_top = 2;
  EXPECT_THAT(refusal(c), HasSubstr("softmax"));
  c = RouterConfig::mixtral();
  c.scale = std::numeric_limits<double>::infinity();
  EXPECT_THAT(refusal(c), HasSubstr("scale inf"));
  c = RouterConfig::deepseek_v3();
  c.epsilon = -1;
  EXPECT_THAT(refusal(c), HasSubstr("epsilon -1"));
}

TEST(Router, RefusesInputThatDoesNotFit) {
  const std::vector<float> logits(8);
  const std::vector<float> bias(3);
  const std::vector<std::uint8_t> padding(3);
  EXPECT_THAT(refusal(RouterConfig::mixtral(3), {.logits = logits, .bias = {}, .padding = {}}),
              HasSubstr("8 logits are no multiple of 3 experts"));
  EXPECT_THAT(refusal(RouterConfig::mixtral(4), {.logits = logits, .bias = bias, .padding = {}}),
              HasSubstr("bias belongs to sigmoid"));
  RouterConfig c = RouterConfig::deepseek_v3(8, 2);
  c.group_top = 1;
  EXPECT_THAT(refusal(c, {.logits = logits, .bias = bias, .padding = {}}),
              HasSubstr("bias has 3 values, there are 8 experts"));
  EXPECT_THAT(refusal(RouterConfig::mixtral(4), {.logits = logits, .bias = {}, .padding = padding}),
              HasSubstr("padding has 3 values, there are 2 tokens"));
}

TEST(Router, NamesAreThoseOfTheCommand) {
  EXPECT_EQ(router_named("deepseek_v3", 256).k, 8);
  EXPECT_EQ(router_named("mixtral", 8).k, 2);
  EXPECT_EQ(router_named("qwen3", 128, 4).k, 4);
  EXPECT_EQ(router_named("switch", 64).k, 1);
  EXPECT_THROW(router_named("switch", 64, 2), InvalidArgument);
  try {
    router_named("gshard", 8);
    FAIL();
  } catch (const InvalidArgument& error) {
    EXPECT_THAT(error.what(), HasSubstr("'gshard': must be one of deepseek_v3, mixtral, qwen3"));
  }
}

}  // namespace
}  // namespace annulus::moe::testing
