// The router's gradient against finite differences of the float64 oracle, with the selection held.
#include "tests/moe/oracle.h"

#include <annulus/error.h>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace annulus::moe::testing {
namespace {

struct Gradients {
  Routing routing;
  std::vector<float> dweights;
  std::vector<float> dlogits;
};

/// Every third pair is dropped where `drops`.
Gradients gradients_of(const Case& c, bool drops) {
  Gradients g;
  Router router(c.config);
  RouterStatus status;
  router.forward(c.input(), g.routing, status);
  std::mt19937_64 generator(c.seed + 1000);
  std::normal_distribution<float> normal;
  Routing kept = g.routing;
  for (std::size_t i = 0; i < g.routing.indices.size(); ++i) {
    g.dweights.push_back(normal(generator));
    if (drops && i % 3 == 0) kept.indices[i] = -1;
  }
  g.dlogits.assign(c.logits.size(), std::numeric_limits<float>::quiet_NaN());
  router.backward(c.input(), g.routing, kept, g.dweights, g.dlogits);
  for (std::size_t i = 0; i < g.dweights.size(); ++i) {
    if (kept.indices[i] < 0) g.dweights[i] = 0;  // what the dropped ones must amount to
  }
  return g;
}

/// d of sum (dweights * weights) of one token by each of its logits.
std::vector<double> differences(const Case& c, const Gradients& g, std::int64_t token) {
  const auto k = static_cast<std::size_t>(c.config.k);
  const std::size_t first = static_cast<std::size_t>(token) * k;
  const std::vector<std::int64_t> chosen(
      g.routing.indices.begin() + static_cast<std::ptrdiff_t>(first),
      g.routing.indices.begin() + static_cast<std::ptrdiff_t>(first + k));
  const auto loss = [&](std::span<const double> logits) {
    const std::vector<double> weights = oracle_weights(c.config, logits, chosen);
    double sum = 0;
    for (std::size_t i = 0; i < k; ++i)
      sum += weights[i] * static_cast<double>(g.dweights[first + i]);
    return sum;
  };
  std::vector<double> logits = c.row(token);
  std::vector<double> result;
  for (double& z : logits) {
    const double there = z;
    constexpr double kStep = 1e-5;
    z = there + kStep;
    const double above = loss(logits);
    z = there - kStep;
    result.push_back((above - loss(logits)) / (2 * kStep));
    z = there;
  }
  return result;
}

void expect_gradients(std::uint64_t seed, bool drops) {
  const Case c = random_case(seed);
  SCOPED_TRACE(c.describe() + (drops ? ", drops" : ""));
  const Gradients g = gradients_of(c, drops);
  for (std::int64_t t = 0; t < c.tokens; ++t) {
    const std::vector<double> expected = differences(c, g, t);
    for (std::size_t e = 0; e < expected.size(); ++e) {
      const double got =
          static_cast<double>(g.dlogits[static_cast<std::size_t>(t * c.config.experts) + e]);
      ASSERT_NEAR(got, expected[e], 3e-6 * c.config.scale) << "token " << t << " expert " << e;
    }
  }
}

TEST(RouterGradient, MatchesFiniteDifferences) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) expect_gradients(seed, false);
}

TEST(RouterGradient, DroppedPairsPassNone) {
  for (std::uint64_t seed = 201; seed <= 260; ++seed) expect_gradients(seed, true);
}

TEST(RouterGradient, TheCheckItselfCanFail) {
  const Case c = random_case(3);
  Gradients g = gradients_of(c, false);
  const std::vector<double> expected = differences(c, g, 0);
  double largest = 0;
  for (const double d : expected) largest = std::max(largest, std::abs(d));
  EXPECT_GT(largest, 1e-3);
}

TEST(RouterGradient, RefusesShapesThatDoNotFit) {
  const Case c = random_case(5);
  Gradients g = gradients_of(c, false);
  Router router(c.config);
  std::vector<float> small(g.dlogits.size() - 1);
  EXPECT_THROW(router.backward(c.input(), g.routing, g.routing, g.dweights, small),
               InvalidArgument);
  g.dweights.pop_back();
  EXPECT_THROW(router.backward(c.input(), g.routing, g.routing, g.dweights, g.dlogits),
               InvalidArgument);
}

}  // namespace
}  // namespace annulus::moe::testing
