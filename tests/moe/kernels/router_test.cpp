// The router's kernel against moe/router.cpp: the same experts, weights within 1e-6.
#include "tests/moe/kernels/launches.h"
#include "tests/moe/oracle.h"

#include <annulus/moe.h>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace annulus::testing {
namespace {

using moe::Router;
using moe::RouterConfig;
using moe::Routing;
using moe::Score;
using moe::testing::Case;
using moe::testing::random_case;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Routed {
  std::vector<std::int32_t> indices;
  std::vector<float> weights;
  unsigned bad_tokens = 0;
};

Routed routed(const Case& c, const std::vector<std::uint8_t>& padding, int each, bool wide) {
  const auto pairs = static_cast<std::size_t>(c.tokens * c.config.k);
  Routed out{std::vector<std::int32_t>(pairs, -77), std::vector<float>(pairs, kNan)};
  moe::cuda::RouteParams p = moe::cuda::route_params(c.config);
  p.tokens = c.tokens;
  p.wide = wide;
  p.logits = c.logits.data();
  p.bias = c.bias.empty() ? nullptr : c.bias.data();
  p.padding = padding.empty() ? nullptr : padding.data();
  p.indices = out.indices.data();
  p.weights = out.weights.data();
  p.bad_tokens = &out.bad_tokens;
  launch_route(p, each, c.seed);
  return out;
}

/// Some slots are dropped after they were selected.
void expect_gradients_as_host(const Case& c, Router& router, const Routing& selected, int each) {
  Routing kept = selected;
  std::vector<float> dweights;
  for (std::size_t i = 0; i < selected.indices.size(); ++i) {
    dweights.push_back(std::sin(static_cast<float>(i) + static_cast<float>(c.seed % 100)));
    if (i % 5 == 3) kept.indices[i] = -1;
    if (i % 5 == 3) kept.weights[i] = 0.0F;
  }
  std::vector<float> want(c.logits.size(), kNan), got = want;
  router.backward({.logits = c.logits, .bias = c.bias}, selected, kept, dweights, want);
  std::vector<std::int32_t> indices = selected.indices;
  moe::cuda::RouteBackwardParams p{.forward = moe::cuda::route_params(c.config)};
  p.forward.tokens = c.tokens;
  p.forward.wide = c.config.experts % 4 == 0;
  p.forward.logits = c.logits.data();
  p.forward.indices = indices.data();
  p.kept = kept.indices.data();
  p.dweights = dweights.data();
  p.dlogits = got.data();
  launch_route_backward(p, each, c.seed);
  for (std::size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 2e-6F) << i;
}

/// At each width that holds the experts.
void expect_as_host(const Case& c, const std::vector<std::uint8_t>& padding = {}) {
  SCOPED_TRACE(c.describe());
  Router router(c.config);
  Routing routing;
  moe::RouterStatus status;
  router.forward({.logits = c.logits, .bias = c.bias, .padding = padding}, routing, status);
  for (const int each : {1, 4, 8, 16}) {
    if (each * 32 < c.config.experts || each * 32 > 8 * c.config.experts + 32) continue;
    SCOPED_TRACE("experts a lane " + std::to_string(each));
    const Routed got = routed(c, padding, each, c.config.experts % 4 == 0);
    ASSERT_EQ(got.indices, routing.indices);
    ASSERT_EQ(static_cast<std::int64_t>(got.bad_tokens), status.bad_tokens);
    for (std::size_t i = 0; i < got.weights.size(); ++i) {
      const float want = routing.weights[i];
      ASSERT_NEAR(got.weights[i], want, 1e-6F * std::max(1.0F, std::abs(want))) << "pair " << i;
    }
    expect_gradients_as_host(c, router, routing, each);
  }
}

TEST(MoeKernelsRouter, EveryKindOfRouter) {
  for (std::uint64_t seed = 1; seed <= 120; ++seed) expect_as_host(random_case(seed));
}

Case case_of(const RouterConfig& config, std::int64_t tokens, std::uint64_t seed) {
  Case c = random_case(seed);
  c.config = config;
  c.tokens = tokens;
  c.bias.clear();
  std::mt19937_64 generator(seed);
  std::normal_distribution<float> normal(0.0F, 2.0F);
  c.logits.resize(static_cast<std::size_t>(tokens * config.experts));
  for (float& z : c.logits) z = normal(generator);
  if (config.score == Score::sigmoid) {
    for (std::int64_t e = 0; e < config.experts; ++e) c.bias.push_back(0.1F * normal(generator));
  }
  return c;
}

std::vector<RouterConfig> named() {
  return {RouterConfig::deepseek_v3(),
          RouterConfig::mixtral(),
          RouterConfig::qwen3(),
          RouterConfig::qwen3(128, 8, false),
          RouterConfig::switch_transformer(64),
          RouterConfig::qwen3(512, 10),
          RouterConfig::deepseek_v3(104, 6)};
}

TEST(MoeKernelsRouter, TheNamedOnesAtTheirSizes) {
  std::uint64_t seed = 1000;
  for (const RouterConfig& config : named()) {
    for (const std::int64_t tokens : {7, 1, 0}) expect_as_host(case_of(config, tokens, ++seed));
  }
}

/// Few different values: most decisions are ties, also between groups and of both zeroes.
TEST(MoeKernelsRouter, A_TiesGoToTheLowerIndex) {
  std::uint64_t seed = 2000;
  for (const RouterConfig& config : named()) {
    Case c = case_of(config, 9, ++seed);
    c.bias.clear();
    for (std::size_t i = 0; i < c.logits.size(); ++i) {
      c.logits[i] = i % 61 == 5 ? 1.0F : i % 3 == 0 ? -0.0F : 0.0F;
      if (i < static_cast<std::size_t>(config.experts)) c.logits[i] = 0.5F;  // all equal
    }
    expect_as_host(c);
  }
}

TEST(MoeKernelsRouter, E_F_WhatIsNoNumber) {
  std::uint64_t seed = 3000;
  for (const RouterConfig& config : named()) {
    Case c = case_of(config, 8, ++seed);
    const auto experts = static_cast<std::size_t>(config.experts);
    const auto row = [&](std::size_t token) { return &c.logits[token * experts]; };
    row(0)[experts - 1] = kNan;
    row(1)[0] = kInfinity;
    std::fill_n(row(2), experts, kNan);
    std::fill_n(row(3), experts, -kInfinity);
    std::fill_n(row(4) + 1, experts - 1, -kInfinity);
    std::fill_n(row(5), experts, kInfinity);
    row(6)[1] = -kInfinity;
    row(6)[2] = -kNan;
    expect_as_host(c);
    if (c.bias.empty()) continue;
    c.bias[0] = kInfinity;  // a group of both infinities is no number
    c.bias[1] = -kInfinity;
    for (std::size_t e = 5; e < experts; ++e) c.bias[e] -= 3.0F;
    expect_as_host(c);
  }
}

TEST(MoeKernelsRouter, L_PaddingSelectsNothing) {
  Case c = case_of(RouterConfig::deepseek_v3(), 6, 4000);
  c.logits[256] = kNan;  // of a token that is none
  expect_as_host(c, {0, 1, 0, 1, 1, 0});
}

TEST(MoeKernelsRouter, SmallSigmoidsAndNoEpsilon) {
  RouterConfig config = RouterConfig::deepseek_v3(64, 4);
  for (const double epsilon : {1e-20, 0.0, 1e-60}) {
    config.epsilon = epsilon;
    Case c = case_of(config, 3, 5000);
    std::fill_n(c.logits.begin(), 64, -200.0F);                   // sigmoids of 0
    for (std::size_t e = 64; e < 128; ++e) c.logits[e] -= 78.0F;  // tiny, yet not subnormal
    expect_as_host(c);
  }
}

}  // namespace
}  // namespace annulus::testing
