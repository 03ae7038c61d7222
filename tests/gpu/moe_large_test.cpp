// What only a full GPU shows: many blocks at once, and the same bits again.
#include "tests/moe/kernels/launches.h"

#include <annulus/moe.h>

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace annulus::testing {
namespace {

struct Routed {
  std::vector<std::int32_t> indices;
  std::vector<float> weights;
};

Routed routed(const moe::RouterConfig& config, const std::vector<float>& logits,
              std::int64_t tokens) {
  const auto pairs = static_cast<std::size_t>(tokens * config.k);
  Routed out{std::vector<std::int32_t>(pairs, -7), std::vector<float>(pairs, NAN)};
  moe::cuda::RouteParams p = moe::cuda::route_params(config);
  p.tokens = tokens;
  p.logits = logits.data();
  p.indices = out.indices.data();
  p.weights = out.weights.data();
  launch_route(p, 0, 0);
  return out;
}

/// Exponentials of two libraries differ in the last place, so a few close scores may swap.
TEST(MoeKernelsLarge, RouterOf4096Tokens) {
  constexpr std::int64_t kTokens = 4096;
  for (const auto& config : {moe::RouterConfig::deepseek_v3(), moe::RouterConfig::qwen3()}) {
    std::mt19937 generator(11);
    std::normal_distribution<float> normal;
    std::vector<float> logits(static_cast<std::size_t>(kTokens * config.experts));
    for (float& z : logits) z = normal(generator);
    moe::Router router(config);
    moe::Routing want;
    moe::RouterStatus status;
    router.forward({.logits = logits}, want, status);
    const Routed got = routed(config, logits, kTokens);
    int swapped = 0;
    for (std::size_t i = 0; i < got.indices.size(); ++i) {
      swapped += got.indices[i] != want.indices[i] ? 1 : 0;
      ASSERT_NEAR(got.weights[i], want.weights[i], 2e-6F) << i;
    }
    EXPECT_LE(swapped, config.score == moe::Score::sigmoid ? 8 : 0);
    for (int again = 0; again < 3; ++again) {
      const Routed same = routed(config, logits, kTokens);
      ASSERT_EQ(same.indices, got.indices);
      ASSERT_EQ(same.weights, got.weights);
    }
  }
}

}  // namespace
}  // namespace annulus::testing
