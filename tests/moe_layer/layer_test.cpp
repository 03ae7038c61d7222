#include "tests/moe_layer/run_layer.h"
#include "tests/support/each_world.h"

#include <annulus/error.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace annulus::testing {
namespace {

using moe::Activation;
using moe::Dispatch;
using moe::LayerConfig;
using moe::Recompute;
using moe::RouterConfig;

/// Odd sizes; 24 experts divide over 1, 2, 3, 4 and 8 ranks.
LayerConfig given(DType dtype = DType::f32) {
  return {.hidden = 19, .ffn = 13, .dtype = dtype, .experts = 24, .k = 3};
}

LayerConfig routed(DType dtype, const RouterConfig& router, std::int64_t shared_ffn = 0) {
  return {.hidden = 19,
          .ffn = 13,
          .dtype = dtype,
          .experts = router.experts,
          .k = router.k,
          .shared_ffn = shared_ffn,
          .router = router};
}

RouterConfig deepseek() {
  RouterConfig router = RouterConfig::deepseek_v3(24, 4);
  router.groups = 6;
  router.groups_kept = 3;
  router.group_top = 2;
  return router;
}

/// Degrees that this world can have.
std::vector<int> degrees(int world, std::int64_t experts) {
  std::vector<int> list;
  for (int d = 1; d <= world; ++d) {
    if (world % d == 0 && experts % d == 0) list.push_back(d);
  }
  return list;
}

/// The first seed from `from` whose routing no rounding can change.
LayerCase clear_case(std::uint64_t from, const LayerConfig& config, std::int64_t tokens) {
  for (std::uint64_t seed = from;; seed += 100) {
    LayerCase layer = random_layer(seed, config, tokens);
    double gap = 1.0;
    oracle_routing(layer, &gap);
    if (gap > 1e-4) return layer;
  }
}

void expect_truth(const LayerCase& layer) {
  const LayerResult truth = oracle_layer(layer, oracle_routing(layer));
  each_world([&](Mesh& mesh) {
    for (const int degree : degrees(mesh.world(), layer.config.experts)) {
      SCOPED_TRACE(layer.describe() + ", degree " + std::to_string(degree));
      const RunLayer run{.options = {.expert_degree = degree, .threads = 2}, .calls = 2};
      expect_near(layer, run_layer(mesh, layer, run), truth);
    }
  });
}

TEST(MoeLayer, EqualsFloat64WithGivenRouting) {
  expect_truth(random_layer(301, given(), 23));
  expect_truth(random_layer(302, given(DType::bf16), 40));
  LayerConfig gelu = given();
  gelu.activation = Activation::gelu;
  gelu.shared_ffn = 17;
  expect_truth(random_layer(303, gelu, 11));
}

TEST(MoeLayer, EqualsFloat64WithEachRouter) {
  expect_truth(clear_case(311, routed(DType::f32, RouterConfig::mixtral(24, 2)), 21));
  expect_truth(clear_case(312, routed(DType::f32, RouterConfig::qwen3(24, 5, false)), 13));
  expect_truth(clear_case(313, routed(DType::bf16, RouterConfig::qwen3(24, 4)), 14));
  expect_truth(clear_case(314, routed(DType::f32, deepseek(), 21), 17));
  expect_truth(clear_case(315, routed(DType::f32, RouterConfig::switch_transformer(24)), 9));
}

TEST(MoeLayer, LossesReachInputAndRouter) {
  LayerConfig config = routed(DType::f32, deepseek(), 5);
  config.balance_alpha = 0.3;
  config.z_beta = 0.2;
  expect_truth(clear_case(321, config, 15));
}

LayerConfig balanced(moe::BalanceOver over) {
  LayerConfig c = routed(DType::f32, RouterConfig::qwen3(24, 3, false), 5);
  c.balance_alpha = 0.3;
  c.z_beta = 0.2;
  c.balance_over = over;
  c.sequences = 4;  // of which one stays empty
  return c;
}

LayerCase with_sequences(LayerCase layer) {
  for (std::int64_t t = 0; t < layer.tokens; ++t) {
    layer.loss_set.push_back(static_cast<std::int32_t>(t / 8 + (t > 15 ? 1 : 0)));
  }
  return layer;
}

/// Capacities, and losses of each rank, are those of its own tokens.
void expect_balanced(LayerCase layer) {
  each_world([&](Mesh& mesh) {
    for (const int degree : degrees(mesh.world(), layer.config.experts)) {
      for (const bool empty_rank : {false, true}) {
        SCOPED_TRACE(layer.describe() + ", degree " + std::to_string(degree));
        LayerCase own = layer;
        const LayerResult truth = truth_of_ranks(own, mesh.world(), empty_rank);
        const RunLayer run{
            .options = {.expert_degree = degree}, .calls = 2, .empty_rank = empty_rank};
        expect_near(own, run_layer(mesh, own, run), truth);
      }
    }
  });
}

TEST(MoeLayer, LossesOverRanksSequencesAndEachRank) {
  expect_balanced(clear_case(322, balanced(moe::BalanceOver::ranks), 21));
  expect_balanced(clear_case(323, balanced(moe::BalanceOver::rank), 21));
  expect_balanced(with_sequences(clear_case(324, balanced(moe::BalanceOver::sequences), 21)));
}

TEST(MoeLayer, DropsOverCapacityByBothPolicies) {
  LayerConfig config = routed(DType::f32, deepseek(), 5);
  config.capacity = {0.6, moe::DropPolicy::probability};
  config.balance_alpha = 0.1;
  expect_balanced(clear_case(325, config, 33));
  LayerConfig position = given();
  position.capacity = {0.4, moe::DropPolicy::position};
  expect_balanced(random_layer(326, position, 31));
}

TEST(MoeLayer, TheRouterSeesNoise) {
  LayerConfig config = routed(DType::f32, RouterConfig::switch_transformer(24));
  config.jitter = 0.25;
  expect_balanced(clear_case(327, config, 19));
  LayerConfig shared = routed(DType::bf16, RouterConfig::mixtral(24, 2), 6);
  shared.jitter = 0.1;
  expect_balanced(clear_case(328, shared, 17));
}

TEST(MoeLayer, RefusesSequencesThatDoNotFit) {
  Mesh mesh = Mesh::single();
  LayerCase layer = with_sequences(clear_case(329, balanced(moe::BalanceOver::sequences), 9));
  layer.loss_set[3] = 4;
  EXPECT_THROW(run_layer(mesh, layer, {}), InvalidArgument);
  layer.loss_set.clear();
  EXPECT_THROW(run_layer(mesh, layer, {}), InvalidArgument);
}

TEST(MoeLayer, GradientsEqualFiniteDifferencesThroughTheWholeLayer) {
  constexpr double kStep = 1e-4;
  LayerConfig config = routed(DType::f32, RouterConfig::mixtral(4, 2), 3);
  config.hidden = 5;
  config.ffn = 4;
  config.balance_alpha = 0.1;
  config.z_beta = 0.1;
  LayerCase layer = clear_case(331, config, 6);
  const moe::Routing routing = oracle_routing(layer);
  const auto difference = [&](double& at) {
    const double kept = at;
    at = kept + kStep;
    const double up = oracle_loss(layer, routing);
    at = kept - kStep;
    const double down = oracle_loss(layer, routing);
    at = kept;
    return (up - down) / (2 * kStep);
  };
  LayerResult found;
  const auto differences = [&](Values& of) {
    Values d;
    for (double& value : of) d.push_back(difference(value));
    return d;
  };
  found.dx = differences(layer.x);
  found.router = differences(layer.router);
  found.experts = {differences(layer.experts.gate), differences(layer.experts.up),
                   differences(layer.experts.down)};
  found.shared = {differences(layer.shared.gate), differences(layer.shared.up),
                  differences(layer.shared.down)};
  each_world([&](Mesh& mesh) {
    SCOPED_TRACE(layer.describe());
    const LayerResult got = run_layer(mesh, layer, {.options = {.expert_degree = 1}});
    const auto near = [](const char* name, const Values& a, const Values& b) {
      ASSERT_EQ(a.size(), b.size());
      for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 2e-5) << name << i;
    };
    near("dx", got.dx, found.dx);
    near("drouter", got.router, found.router);
    near("dgate", got.experts.gate, found.experts.gate);
    near("dup", got.experts.up, found.experts.up);
    near("ddown", got.experts.down, found.experts.down);
    near("shared dgate", got.shared.gate, found.shared.gate);
    near("shared ddown", got.shared.down, found.shared.down);
  });
}

/// On any ranks, with any transport, the bits of one rank.
void expect_bits_of_one_rank(const LayerCase& layer, const RunLayer& run) {
  const LayerResult one = [&] {
    Mesh mesh = Mesh::single();
    return run_layer(mesh, layer, {.options = {.expert_degree = 1}, .assign = run.assign});
  }();
  each_world([&](Mesh& mesh) {
    for (const int degree : degrees(mesh.world(), layer.config.experts)) {
      SCOPED_TRACE(layer.describe() + ", degree " + std::to_string(degree));
      RunLayer now = run;
      now.options.expert_degree = degree;
      // Groups each have a part of the sum over tokens; summed afterwards, it is another sum.
      expect_same(run_layer(mesh, layer, now), one, degree == mesh.world());
    }
  });
}

TEST(MoeLayer, HasTheSameBitsForEveryDegreeAndTransport) {
  expect_bits_of_one_rank(random_layer(341, given(), 37), {});
  expect_bits_of_one_rank(random_layer(342, given(DType::bf16), 37), {.options = {.threads = 2}});
  expect_bits_of_one_rank(clear_case(343, routed(DType::bf16, deepseek(), 21), 19),
                          {.empty_rank = true});
}

TEST(MoeLayer, HasTheSameBitsForEveryWayToMoveAndToKeep) {
  const LayerCase layer = random_layer(351, given(DType::bf16), 29);
  for (const Dispatch dispatch : {Dispatch::rows, Dispatch::tokens}) {
    for (const Recompute recompute :
         {Recompute::activation, Recompute::hidden, Recompute::dispatch}) {
      expect_bits_of_one_rank(layer, {.options = {.dispatch = dispatch, .recompute = recompute}});
    }
  }
}

TEST(MoeLayer, WhatDoesNotFitComesInFurtherRounds) {
  const LayerCase layer = random_layer(361, given(DType::bf16), 29);
  // A row at a time.
  expect_bits_of_one_rank(random_layer(362, given(), 3), {.options = {.capacity_factor = 1e-9}});
  for (const double factor : {0.2, 0.7}) {
    for (const Recompute recompute : {Recompute::activation, Recompute::dispatch}) {
      expect_bits_of_one_rank(layer, {.options = {.capacity_factor = factor,
                                                  .dispatch = Dispatch::tokens,
                                                  .recompute = recompute}});
    }
  }
  each_world([&](Mesh& mesh) {
    const int degree = degrees(mesh.world(), 24).back();
    moe::LayerLoad load;
    run_layer(mesh, layer, {.options = {.expert_degree = degree, .capacity_factor = 0.2}}, &load);
    EXPECT_GT(load.rounds, 1) << "the test shows nothing";
    EXPECT_FALSE(load.sent_tokens);
  });
}

TEST(MoeLayer, AddsToMainGradients) {
  const LayerCase layer = random_layer(371, given(), 12);
  expect_bits_of_one_rank(layer, {.assign = true});
  each_world([&](Mesh& mesh) {
    const int degree = degrees(mesh.world(), 24).back();
    LayerResult truth = oracle_layer(layer, oracle_routing(layer));
    const double groups = mesh.world() / degree;
    for (Values* values : {&truth.experts.gate, &truth.experts.up, &truth.experts.down}) {
      for (double& value : *values) value = 2 * value + groups;
    }
    const RunLayer run{.options = {.expert_degree = degree}, .calls = 2, .assign = false};
    expect_near(layer, run_layer(mesh, layer, run), truth);
  });
}

/// Corners, each against the truth and bit for bit against one rank.
void expect_corner(const LayerCase& layer) {
  expect_truth(layer);
  expect_bits_of_one_rank(layer, {.empty_rank = true});
  expect_bits_of_one_rank(layer, {.options = {.dispatch = Dispatch::tokens}, .empty_rank = true});
}

TEST(MoeLayer, AllTokensToOneExpert) {
  LayerCase layer = random_layer(381, given(), 18);
  for (std::size_t i = 0; i < layer.routing.indices.size(); ++i) {
    layer.routing.indices[i] = i % 3 == 1 ? 17 : -1;
    layer.routing.weights[i] = i % 3 == 1 ? 0.5F : 0.0F;
  }
  expect_corner(layer);
}

/// Expert e with weight 1 / (e + 1), k different ones a token.
void make_zipf(LayerCase& layer) {
  std::vector<double> weights;
  for (std::int64_t e = 0; e < layer.config.experts; ++e) {
    weights.push_back(1.0 / static_cast<double>(e + 1));
  }
  std::mt19937_64 generator(layer.seed);
  std::discrete_distribution<std::int32_t> draw(weights.begin(), weights.end());
  moe::Routing& r = layer.routing;
  for (auto token = r.indices.begin(); token != r.indices.end(); token += r.k) {
    for (auto slot = token; slot != token + r.k; ++slot) {
      do *slot = draw(generator);
      while (std::find(token, slot, *slot) != slot);
    }
  }
  std::ranges::fill(r.weights, 0.25F);
}

TEST(MoeLayer, ZipfRouting) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    LayerCase layer = random_layer(389, given(dtype), 61);
    make_zipf(layer);
    // The first has the most of 61 · 3 pairs, several times the mean of 7.6; some have none.
    const auto rows = [&](std::int32_t e) { return std::ranges::count(layer.routing.indices, e); };
    EXPECT_GT(rows(0), 30) << "the test shows nothing";
    EXPECT_LT(rows(23), 8);
    expect_corner(layer);
    // The busiest ranks spill into rounds.
    expect_bits_of_one_rank(layer, {.options = {.capacity_factor = 0.8}});
  }
}

TEST(MoeLayer, NoSelectionsAtAll) {
  LayerCase layer = random_layer(382, given(), 7);
  layer.config.shared_ffn = 0;
  std::ranges::fill(layer.routing.indices, -1);
  std::ranges::fill(layer.routing.weights, 0.0F);
  expect_corner(layer);
}

TEST(MoeLayer, FewerTokensThanExperts) { expect_corner(random_layer(383, given(), 1)); }

TEST(MoeLayer, NoTokensOnAnyRank) {
  expect_corner(random_layer(384, given(), 0));
  expect_corner(random_layer(385, routed(DType::f32, RouterConfig::mixtral(24, 2), 6), 0));
}

TEST(MoeLayer, EveryExpertForEveryToken) {
  LayerConfig config = given();
  config.experts = config.k = 8;
  expect_corner(random_layer(386, config, 9));
}

}  // namespace
}  // namespace annulus::testing
