// A whole layer on one device, and on several that share its experts, against float64: forward, and
// every gradient.
#include "moe/device_layer.h"
#include "tests/moe/kernels/device.h"
#include "tests/moe/kernels/device_ranks.h"
#include "tests/moe/kernels/device_tensor.h"
#include "tests/moe_layer/order_free.h"
#include "tests/moe_layer/run_layer.h"

#include <annulus/error.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace annulus::testing {
namespace {

using moe::Activation;
using moe::DeviceLayer;
using moe::LayerConfig;
using moe::RouterConfig;

struct Shape {
  DType dtype;
  Activation activation;
  std::int64_t hidden, ffn, shared_ffn, tokens;
  RouterConfig router;
};

TEST(MoeKernelsLayer, EqualsFloat64ForwardAndBackward) {
  std::uint64_t seed = 40;
  for (const Shape& s :
       {Shape{DType::f32, Activation::swiglu, 7, 5, 3, 13, RouterConfig::mixtral(6, 2)},
        Shape{DType::bf16, Activation::swiglu, 48, 32, 16, 33, RouterConfig::deepseek_v3(32, 4)},
        Shape{DType::bf16, Activation::gelu, 24, 16, 0, 9, RouterConfig::qwen3(40, 3, false)},
        Shape{DType::f32, Activation::swiglu, 16, 8, 0, 1, RouterConfig::switch_transformer(5)},
        Shape{DType::f32, Activation::gelu, 8, 4, 4, 70, RouterConfig::qwen3(12, 4)}}) {
    LayerConfig c;
    c.hidden = s.hidden;
    c.ffn = s.ffn;
    c.activation = s.activation;
    c.dtype = s.dtype;
    c.experts = s.router.experts;
    c.k = s.router.k;
    c.shared_ffn = s.shared_ffn;
    c.router = s.router;
    const LayerCase layer = random_layer(++seed, c, s.tokens);
    SCOPED_TRACE(layer.describe());
    double gap = 1e300;
    const moe::Routing routing = oracle_routing(layer, &gap);
    ASSERT_GT(gap, 2e-5) << "take another seed: sums in another order must decide alike";
    expect_near(layer, run_on_devices(layer, {.more_tokens = 5}), oracle_layer(layer, routing));
  }
}

TEST(MoeKernelsLayer, WithoutTokensGradientsAreZero) {
  LayerConfig c;
  c.hidden = 8;
  c.ffn = 4;
  c.shared_ffn = 4;
  c.experts = 3;
  c.k = 2;
  c.router = RouterConfig::mixtral(3, 2);
  const LayerResult got = run_on_devices(random_layer(60, c, 0), {.more_tokens = 2});
  for (const Values* v : {&got.experts.gate, &got.experts.up, &got.experts.down, &got.shared.up,
                          &got.shared.down, &got.router}) {
    EXPECT_EQ(*v, Values(v->size(), 0.0));
  }
}

LayerConfig config_of(DType dtype, const RouterConfig& router) {
  LayerConfig c;
  c.hidden = 20;
  c.ffn = 12;
  c.dtype = dtype;
  c.experts = router.experts;
  c.k = router.k;
  c.router = router;
  return c;
}

LayerConfig without_router(LayerConfig c) {
  c.router.reset();
  return c;
}

TEST(MoeKernelsLayer, TakesTheCallersRouting) {
  const LayerCase layer =
      random_layer(71, without_router(config_of(DType::f32, RouterConfig::mixtral(9, 3))), 17);
  expect_near(layer, run_on_devices(layer, {}), oracle_layer(layer, layer.routing));
}

TEST(MoeKernelsLayer, AnotherCallMayComeBeforeBackward) {
  LayerConfig c = config_of(DType::f32, RouterConfig::mixtral(8, 2));
  c.shared_ffn = 7;
  const LayerCase layer = random_layer(72, c, 19);
  const LayerResult truth = oracle_layer(layer, oracle_routing(layer));
  for (const int ranks : {1, 4}) {
    SCOPED_TRACE(ranks);
    expect_near(layer, run_on_devices(layer, {.ranks = ranks, .interleaved = true}), truth);
  }
}

/// From a seed whose routing no rounding changes.
LayerCase clear_layer(std::uint64_t seed, const LayerConfig& config, std::int64_t tokens) {
  for (;; ++seed) {
    LayerCase layer = random_layer(seed, config, tokens);
    double gap = 1e300;
    oracle_routing(layer, &gap);
    if (gap > 2e-5) return layer;
  }
}

/// On several devices: the truth, and the routes of one device.
void expect_ranks(const LayerCase& layer) {
  const LayerResult truth = oracle_layer(layer, oracle_routing(layer));
  std::vector<std::int32_t> one;
  run_on_devices(layer, {}, &one);
  for (const int ranks : {2, 4, 8}) {
    SCOPED_TRACE(layer.describe() + ", ranks " + std::to_string(ranks));
    std::vector<std::int32_t> many;
    const DeviceRanks run{.ranks = ranks, .empty_rank = ranks == 4};
    expect_near(layer, run_on_devices(layer, run, &many), truth);
    EXPECT_EQ(many, one);
  }
}

TEST(MoeKernelsLayer, RanksShareTheExperts) {
  LayerConfig v3 = config_of(DType::bf16, RouterConfig::deepseek_v3(32, 4));
  v3.shared_ffn = 8;
  expect_ranks(clear_layer(200, v3, 29));
  LayerConfig gelu = without_router(config_of(DType::f32, RouterConfig::mixtral(24, 3)));
  gelu.hidden = 19;  // rows of odd length
  gelu.activation = Activation::gelu;
  expect_ranks(random_layer(82, gelu, 23));
}

TEST(MoeKernelsLayer, RanksInCorners) {
  LayerConfig c = without_router(config_of(DType::f32, RouterConfig::mixtral(8, 3)));
  expect_ranks(random_layer(83, c, 1));
  expect_ranks(random_layer(84, c, 0));
  LayerCase one_expert = random_layer(85, c, 18);
  for (std::size_t i = 0; i < one_expert.routing.indices.size(); ++i) {
    one_expert.routing.indices[i] = i % 3 == 1 ? 5 : -1;
    one_expert.routing.weights[i] = i % 3 == 1 ? 0.5F : 0.0F;
  }
  expect_ranks(one_expert);
  c.k = 8;
  expect_ranks(random_layer(86, c, 9));
}

/// Capacities, and losses of each rank, are those of its own tokens.
void expect_balanced(LayerCase layer) {
  const moe::Routing routing = oracle_routing(layer);
  const bool drops = layer.config.capacity.factor != 0.0;
  for (const int ranks : {1, 2, 4}) {
    SCOPED_TRACE(layer.describe() + ", ranks " + std::to_string(ranks));
    moe::Routing kept;
    const LayerResult truth = truth_of_ranks(layer, ranks, ranks == 4, &kept);
    EXPECT_EQ(kept.indices != routing.indices, drops) << "the test shows nothing";
    std::vector<std::int32_t> indices;
    const DeviceRanks run{.ranks = ranks, .empty_rank = ranks == 4, .interleaved = ranks == 2};
    expect_near(layer, run_on_devices(layer, run, &indices), truth);
    EXPECT_EQ(indices, kept.indices);
  }
}

TEST(MoeKernelsLayer, DropsOverCapacityByBothPolicies) {
  LayerConfig c = config_of(DType::f32, RouterConfig::mixtral(8, 3));
  c.capacity = {0.8, moe::DropPolicy::probability};
  expect_balanced(clear_layer(300, c, 29));
  c.capacity.policy = moe::DropPolicy::position;
  expect_balanced(random_layer(301, without_router(c), 27));
  LayerConfig v3 = config_of(DType::f32, RouterConfig::deepseek_v3(32, 4));
  v3.capacity = {0.5, moe::DropPolicy::probability};
  v3.shared_ffn = 6;
  expect_balanced(clear_layer(302, v3, 31));
}

TEST(MoeKernelsLayer, LossesOverRanksSequencesAndEachRank) {
  LayerConfig c = config_of(DType::f32, RouterConfig::qwen3(12, 3, false));
  c.balance_alpha = 0.3;
  c.z_beta = 0.2;
  c.shared_ffn = 5;
  expect_balanced(clear_layer(310, c, 23));
  c.balance_over = moe::BalanceOver::rank;
  expect_balanced(clear_layer(311, c, 21));
  LayerConfig v3 = config_of(DType::f32, RouterConfig::deepseek_v3(32, 4));
  v3.balance_alpha = 0.4;
  v3.capacity.factor = 0.9;
  v3.balance_over = moe::BalanceOver::sequences;
  v3.sequences = 4;  // of which one stays empty
  LayerCase layer = clear_layer(312, v3, 26);
  for (std::int64_t t = 0; t < layer.tokens; ++t) {
    layer.loss_set.push_back(static_cast<std::int32_t>(t / 11 + (t > 20 ? 1 : 0)));
  }
  expect_balanced(layer);
}

TEST(MoeKernelsLayer, TheRouterSeesNoise) {
  LayerConfig c = config_of(DType::f32, RouterConfig::switch_transformer(8));
  c.jitter = 0.25;
  expect_balanced(clear_layer(320, c, 19));
  c.shared_ffn = 5;
  c.z_beta = 0.1;
  expect_balanced(clear_layer(321, c, 22));
  LayerConfig half = config_of(DType::bf16, RouterConfig::qwen3(8, 2));
  half.jitter = 0.1;
  expect_balanced(clear_layer(322, half, 17));
}

/// Tokens once a rank: the bits of copies, whoever computes.
void expect_once_as_copies(const LayerCase& layer) {
  for (const int ranks : {2, 4, 8}) {
    for (const bool interleaved : {false, true}) {
      SCOPED_TRACE(layer.describe() + ", ranks " + std::to_string(ranks));
      DeviceRanks run{.ranks = ranks, .empty_rank = ranks == 4, .interleaved = interleaved};
      const LayerResult copies = run_on_devices(layer, run);
      run.once_a_rank = true;
      expect_same(run_on_devices(layer, run), copies, true);
    }
  }
}

TEST(MoeKernelsLayer, TokensOnceARankHaveTheBitsOfCopies) {
  LayerConfig v3 = config_of(DType::bf16, RouterConfig::deepseek_v3(32, 4));
  v3.shared_ffn = 8;
  expect_once_as_copies(clear_layer(400, v3, 29));
  LayerConfig odd = without_router(config_of(DType::f32, RouterConfig::mixtral(24, 5)));
  odd.hidden = 19;
  expect_once_as_copies(random_layer(401, odd, 23));
  expect_once_as_copies(random_layer(402, odd, 0));
}

/// Messages: the bits of stores into the memory of other ranks, in one round and in several.
void expect_messages_as_stores(const LayerCase& layer, std::int64_t capacity) {
  for (const int ranks : {2, 4}) {
    for (const bool interleaved : {false, true}) {
      SCOPED_TRACE(layer.describe() + ", ranks " + std::to_string(ranks));
      DeviceRanks run{.ranks = ranks,
                      .empty_rank = ranks == 4,
                      .interleaved = interleaved,
                      .capacity = capacity};
      const LayerResult stores = run_on_devices(layer, run);
      std::int64_t rounds = 0;
      run.most_rounds = &rounds;
      run.in_messages = true;
      expect_same(run_on_devices(layer, run), stores, true);
      EXPECT_EQ(rounds > 1, capacity > 0);
    }
  }
}

TEST(MoeKernelsLayer, MessagesHaveTheBitsOfStores) {
  LayerConfig v3 = config_of(DType::bf16, RouterConfig::deepseek_v3(32, 4));
  v3.shared_ffn = 8;
  expect_messages_as_stores(clear_layer(420, v3, 29), 0);
  LayerConfig odd = without_router(config_of(DType::f32, RouterConfig::mixtral(24, 5)));
  odd.hidden = 19;
  expect_messages_as_stores(random_layer(421, odd, 23), 11);
  expect_messages_as_stores(random_layer(422, odd, 0), 0);
}

/// Where another forward comes before each backward: the bits of a backward that follows its own,
/// and the work of it where all is kept.
void expect_kept(const LayerCase& layer, bool once_a_rank, bool in_messages) {
  for (const int ranks : {1, 4}) {
    SCOPED_TRACE(layer.describe() + ", ranks " + std::to_string(ranks));
    std::int64_t at_once = 0;
    DeviceRanks run{.ranks = ranks,
                    .empty_rank = ranks == 4,
                    .once_a_rank = once_a_rank,
                    .in_messages = in_messages,
                    .backward_flops = &at_once};
    const LayerResult one = run_on_devices(layer, run);
    run.interleaved = true;
    for (const auto recompute :
         {moe::Recompute::activation, moe::Recompute::hidden, moe::Recompute::dispatch}) {
      std::int64_t later = 0;
      run.recompute = recompute;
      run.backward_flops = &later;
      expect_same(run_on_devices(layer, run), one, true);
      // Shared experts compute their first products again in any case; here there are none.
      EXPECT_EQ(later > at_once, recompute != moe::Recompute::activation)
          << later << ", " << at_once;
    }
  }
}

TEST(MoeKernelsLayer, StepsKeepWhatIsNotComputedAgain) {
  const LayerConfig c = config_of(DType::bf16, RouterConfig::qwen3(8, 3));
  expect_kept(clear_layer(440, c, 9), false, false);
  expect_kept(clear_layer(441, c, 13), true, false);
  LayerConfig odd = without_router(config_of(DType::f32, RouterConfig::mixtral(8, 3)));
  odd.hidden = 19;
  expect_kept(random_layer(442, odd, 11), false, true);
}

/// One rank's bits, on any number of them; messages have those of stores on each.
void expect_bits_of_one_device(const LayerCase& layer) {
  const LayerResult one = run_on_devices(layer, {});
  expect_near(layer, one, oracle_layer(layer, oracle_routing(layer)));
  for (const int ranks : {2, 4, 8}) {
    SCOPED_TRACE(layer.describe() + ", ranks " + std::to_string(ranks));
    const DeviceRanks run{.ranks = ranks, .empty_rank = ranks == 4, .once_a_rank = ranks == 8};
    expect_same(run_on_devices(layer, run), one, false);
  }
}

TEST(MoeKernelsLayer, HasTheSameBitsOnAnyNumberOfRanks) {
  LayerConfig c = without_router(config_of(DType::f32, RouterConfig::mixtral(24, 5)));
  expect_bits_of_one_device(order_free_layer(430, c, 19));
  c.dtype = DType::bf16;
  c.hidden = 40;
  c.activation = Activation::gelu;
  expect_bits_of_one_device(order_free_layer(431, c, 23));
}

/// Rounds: bits of one round where a product's rows do not depend on how many there are.
void expect_rounds(const LayerCase& layer, std::int64_t capacity) {
  const bool exact = test_device().kernel->backend == "cpu";
  for (const int ranks : {1, 2, 4}) {
    SCOPED_TRACE(layer.describe() + ", ranks " + std::to_string(ranks) + ", capacity " +
                 std::to_string(capacity));
    std::int64_t rounds = 1;
    DeviceRanks run{.ranks = ranks, .empty_rank = ranks == 4, .most_rounds = &rounds};
    const LayerResult one = run_on_devices(layer, run);
    ASSERT_EQ(rounds, 1);
    run.capacity = capacity;
    run.interleaved = ranks == 2;
    run.once_a_rank = true;
    const LayerResult got = run_on_devices(layer, run);
    ASSERT_GT(rounds, 1) << "the test shows nothing";
    if (exact) expect_same(got, one, true);
    expect_near(layer, got, oracle_layer(layer, oracle_routing(layer)));
  }
}

TEST(MoeKernelsLayer, WhatDoesNotFitComesInFurtherRounds) {
  LayerConfig v3 = config_of(DType::bf16, RouterConfig::deepseek_v3(32, 4));
  v3.shared_ffn = 8;
  const LayerCase routed = clear_layer(410, v3, 27);
  expect_rounds(routed, 13);
  expect_rounds(routed, 26);
  const LayerConfig given = without_router(config_of(DType::f32, RouterConfig::mixtral(8, 3)));
  expect_rounds(random_layer(411, given, 3), 1);  // a row at a time
  LayerCase one_expert = random_layer(412, given, 18);
  for (std::size_t i = 0; i < one_expert.routing.indices.size(); ++i) {
    one_expert.routing.indices[i] = i % 3 == 1 ? 5 : -1;
    one_expert.routing.weights[i] = i % 3 == 1 ? 0.5F : 0.0F;
  }
  expect_rounds(one_expert, 7);
}

TEST(MoeKernelsLayer, MovesABiasInDeviceMemory) {
  const moe::Device device = test_device();
  const DeviceLayer layer(config_of(DType::f32, RouterConfig::deepseek_v3(32, 4)),
                          {.max_tokens = 4}, device);
  std::vector<std::int64_t> counts(32, 3);
  counts[1] = 0;
  counts[2] = 6;  // the mean is 3
  DeviceTensor bias(device, DType::f32, {32});
  bias.fill(Values(32, 0.5).data());
  layer.update_bias(counts, 0.25F, bias.floats(), nullptr);
  Values want(32, 0.5);
  want[1] = 0.75;
  want[2] = 0.25;
  EXPECT_EQ(bias.values(), want);
}

}  // namespace
}  // namespace annulus::testing
