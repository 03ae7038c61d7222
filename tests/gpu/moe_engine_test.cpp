// moe::Layer on GPUs, one rank and several, against float64 and against the CPU's layer. Ranks are
// threads or processes; there may be fewer GPUs than ranks.
#include "comm/nccl/nccl_communicator.h"
#include "runtime/base/clock.h"
#include "tests/moe_layer/run_layer.h"
#include "tests/support/each_world.h"

#include <annulus/device_memory.h>
#include <annulus/error.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

namespace annulus::testing {
namespace {

using moe::Activation;
using moe::LayerConfig;
using moe::RouterConfig;

class MoeOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (device_count() == 0) GTEST_SKIP() << "no GPU";
  }
};

/// 24 experts divide over 1, 2, 3, 4 and 8 ranks.
LayerConfig given(DType dtype, std::int64_t hidden = 19, std::int64_t ffn = 13) {
  return {.hidden = hidden, .ffn = ffn, .dtype = dtype, .experts = 24, .k = 3};
}

LayerConfig routed(DType dtype, const RouterConfig& router, std::int64_t shared_ffn) {
  LayerConfig c = given(dtype, 40, 24);
  c.experts = router.experts;
  c.k = router.k;
  c.shared_ffn = shared_ffn;
  c.router = router;
  return c;
}

/// From a seed whose routing no other order of sums changes.
LayerCase clear_case(std::uint64_t seed, const LayerConfig& config, std::int64_t tokens) {
  for (;; ++seed) {
    LayerCase layer = random_layer(seed, config, tokens);
    double gap = 1e300;
    oracle_routing(layer, &gap);
    if (gap > 1e-4) return layer;
  }
}

/// Degrees of experts that this world can have.
std::vector<int> degrees(int world) {
  std::vector<int> list;
  for (int d = 1; d <= world; ++d) {
    if (world % d == 0 && 24 % d == 0) list.push_back(d);
  }
  return list;
}

struct Loads {
  moe::LayerLoad cpu, gpu;
};

/// Two calls on GPUs: the truth, and the routes of the CPU's layer.
Loads expect_as_on_cpus(Mesh& mesh, const LayerCase& layer, int degree, bool empty_rank,
                        const LayerResult& truth) {
  RunLayer run{.options = {.expert_degree = degree}, .calls = 2, .empty_rank = empty_rank};
  Loads loads;
  moe::Routing cpu, gpu;
  run_layer(mesh, layer, run, &loads.cpu, &cpu);
  run.options.backend = "cuda";
  expect_near(layer, run_layer(mesh, layer, run, &loads.gpu, &gpu), truth);
  EXPECT_EQ(gpu.indices, cpu.indices);
  return loads;
}

/// And the rows that went to experts and ranks.
void expect_truth(const LayerCase& layer, bool empty_rank = false) {
  const LayerResult truth = oracle_layer(layer, oracle_routing(layer));
  each_world([&](Mesh& mesh) {
    for (const int degree : degrees(mesh.world())) {
      SCOPED_TRACE(layer.describe() + ", degree " + std::to_string(degree));
      const Loads loads = expect_as_on_cpus(mesh, layer, degree, empty_rank, truth);
      EXPECT_EQ(loads.gpu.expert_rows, loads.cpu.expert_rows);
      EXPECT_EQ(loads.gpu.rank_rows, loads.cpu.rank_rows);
    }
  });
}

TEST_F(MoeOnGpu, EqualsFloat64WithGivenRouting) {
  expect_truth(random_layer(901, given(DType::f32), 23));
  expect_truth(random_layer(902, given(DType::bf16, 64, 32), 70), true);
  LayerConfig gelu = given(DType::f32);
  gelu.activation = Activation::gelu;
  gelu.shared_ffn = 17;
  expect_truth(random_layer(903, gelu, 11));
}

TEST_F(MoeOnGpu, EqualsFloat64WithARouter) {
  expect_truth(clear_case(911, routed(DType::f32, RouterConfig::mixtral(24, 2), 0), 21));
  expect_truth(clear_case(1011, routed(DType::bf16, RouterConfig::qwen3(24, 4), 16), 14), true);
  RouterConfig v3 = RouterConfig::deepseek_v3(24, 4);
  v3.groups = 6;
  v3.groups_kept = 3;
  v3.group_top = 2;
  expect_truth(clear_case(1111, routed(DType::f32, v3, 8), 17));
}

TEST_F(MoeOnGpu, Corners) {
  expect_truth(random_layer(921, given(DType::f32), 0));
  expect_truth(random_layer(922, given(DType::f32), 1));
  LayerCase one = random_layer(923, given(DType::f32), 18);
  for (std::size_t i = 0; i < one.routing.indices.size(); ++i) {
    one.routing.indices[i] = i % 3 == 1 ? 17 : -1;
    one.routing.weights[i] = i % 3 == 1 ? 0.5F : 0.0F;
  }
  expect_truth(one, true);
}

TEST_F(MoeOnGpu, GivesTheSameBitsTwice) {
  const LayerCase layer = random_layer(931, given(DType::bf16, 128, 64), 300);
  each_world([&](Mesh& mesh) {
    const RunLayer run{
        .options = {.expert_degree = degrees(mesh.world()).back(), .backend = "cuda"}};
    const LayerResult once = run_layer(mesh, layer, run);
    expect_same(run_layer(mesh, layer, run), once, true);
  });
}

TEST_F(MoeOnGpu, AddsToMainGradients) {
  const LayerCase layer = random_layer(941, given(DType::f32), 12);
  each_world([&](Mesh& mesh) {
    const int degree = degrees(mesh.world()).back();
    LayerResult truth = oracle_layer(layer, oracle_routing(layer));
    const double groups = mesh.world() / degree;
    for (Values* values : {&truth.experts.gate, &truth.experts.up, &truth.experts.down}) {
      for (double& value : *values) value = 2 * value + groups;
    }
    const RunLayer run{
        .options = {.expert_degree = degree, .backend = "cuda"}, .calls = 2, .assign = false};
    expect_near(layer, run_layer(mesh, layer, run), truth);
  });
}

/// Capacities, and losses of each rank, are those of its own tokens; the routes are the CPU's.
void expect_balanced(LayerCase layer) {
  each_world([&](Mesh& mesh) {
    const int degree = degrees(mesh.world()).back();
    for (const bool empty_rank : {false, true}) {
      SCOPED_TRACE(layer.describe() + ", degree " + std::to_string(degree));
      LayerCase own = layer;
      const LayerResult truth = truth_of_ranks(own, mesh.world(), empty_rank);
      const Loads loads = expect_as_on_cpus(mesh, own, degree, empty_rank, truth);
      EXPECT_EQ(loads.gpu.dropped, loads.cpu.dropped);
    }
  });
}

LayerConfig balanced(moe::BalanceOver over) {
  LayerConfig c = routed(DType::f32, RouterConfig::qwen3(24, 3, false), 5);
  c.balance_alpha = 0.3;
  c.z_beta = 0.2;
  c.balance_over = over;
  c.sequences = 3;
  return c;
}

TEST_F(MoeOnGpu, LossesOverRanksSequencesAndEachRank) {
  expect_balanced(clear_case(1211, balanced(moe::BalanceOver::ranks), 21));
  expect_balanced(clear_case(1212, balanced(moe::BalanceOver::rank), 21));
  LayerCase layer = clear_case(1213, balanced(moe::BalanceOver::sequences), 21);
  for (std::int64_t t = 0; t < layer.tokens; ++t) {
    layer.loss_set.push_back(static_cast<std::int32_t>(t / 8));
  }
  expect_balanced(layer);
}

TEST_F(MoeOnGpu, DropsOverCapacityByBothPolicies) {
  RouterConfig v3 = RouterConfig::deepseek_v3(24, 4);
  v3.groups = 6;
  v3.groups_kept = 3;
  LayerConfig config = routed(DType::f32, v3, 5);
  config.capacity = {0.6, moe::DropPolicy::probability};
  config.balance_alpha = 0.1;
  expect_balanced(clear_case(1311, config, 33));
  LayerConfig position = given(DType::f32);
  position.capacity = {0.4, moe::DropPolicy::position};
  expect_balanced(random_layer(1411, position, 31));
}

TEST_F(MoeOnGpu, TheRouterSeesNoise) {
  LayerConfig config = routed(DType::f32, RouterConfig::switch_transformer(24), 0);
  config.jitter = 0.25;
  expect_balanced(clear_case(1511, config, 19));
  config.dtype = DType::bf16;
  config.shared_ffn = 6;
  expect_balanced(clear_case(1611, config, 17));
}

/// Copies and tokens once a rank have the same bits; what spills comes in rounds.
TEST_F(MoeOnGpu, EveryWayToMoveRows) {
  const LayerCase layer =
      clear_case(1711, routed(DType::bf16, RouterConfig::qwen3(24, 6), 16), 150);
  const LayerResult truth = oracle_layer(layer, oracle_routing(layer));
  each_world([&](Mesh& mesh) {
    for (const int degree : degrees(mesh.world())) {
      SCOPED_TRACE(layer.describe() + ", degree " + std::to_string(degree));
      RunLayer run{
          .options = {.expert_degree = degree, .dispatch = moe::Dispatch::rows, .backend = "cuda"},
          .calls = 2};
      moe::LayerLoad copies, once, spilled;
      const LayerResult result = run_layer(mesh, layer, run, &copies);
      expect_near(layer, result, truth);
      EXPECT_FALSE(copies.sent_tokens);
      run.options.dispatch = moe::Dispatch::tokens;
      expect_same(run_layer(mesh, layer, run, &once), result, true);
      EXPECT_EQ(once.sent_tokens, degree > 1);
      EXPECT_LE(once.forward_bytes_sent, copies.forward_bytes_sent);
      run.options.capacity_factor = 0.3;
      expect_near(layer, run_layer(mesh, layer, run, &spilled), truth);
      EXPECT_GT(spilled.rounds, 1);
      EXPECT_FALSE(spilled.sent_tokens);
    }
  });
}

/// Another forward before each backward: the bits of a backward that follows its own, with what a
/// step keeps, or without.
TEST_F(MoeOnGpu, StepsKeepWhatRecomputeSays) {
  const LayerConfig config = given(DType::bf16, 64, 32);
  const LayerCase layer = random_layer(1721, config, 190);
  each_world([&](Mesh& mesh) {
    const std::int64_t most = std::ranges::max(split_tokens(layer.tokens, mesh.world(), false));
    for (const int degree : degrees(mesh.world())) {
      SCOPED_TRACE(layer.describe() + ", degree " + std::to_string(degree));
      RunLayer run{.options = {.expert_degree = degree, .backend = "cuda"}};
      moe::LayerLoad at_once;
      const LayerResult one = run_layer(mesh, layer, run, &at_once);
      run.calls = 2;
      run.interleaved = true;
      std::vector<std::int64_t> bytes;
      for (const auto recompute :
           {moe::Recompute::activation, moe::Recompute::hidden, moe::Recompute::dispatch}) {
        run.options.recompute = recompute;
        run.step_bytes = &bytes.emplace_back();
        moe::LayerLoad load;
        expect_same(run_layer(mesh, layer, run, &load), one, true);
        EXPECT_EQ(load.backward_flops > at_once.backward_flops,
                  recompute != moe::Recompute::activation);
      }
      const std::int64_t rows = degree * most * std::min(config.k, config.experts / degree);
      EXPECT_EQ(bytes[0] - bytes[1], rows * 2 * config.ffn * 2) << "what enters the activation";
      EXPECT_EQ(bytes[1] - bytes[2], rows * (config.hidden * 2 + 4)) << "rows and their weights";
    }
  });
}

/// NCCL wants a GPU for each rank.
TEST_F(MoeOnGpu, NcclGivesTheBitsOfStores) {
  if (const std::string why = comm::nccl::why_not(); !why.empty()) GTEST_SKIP() << why;
  LayerConfig config = routed(DType::bf16, RouterConfig::qwen3(24, 6), 16);
  config.z_beta = 0.1;
  const LayerCase layer = clear_case(1811, config, 61);
  const LayerResult truth = oracle_layer(layer, oracle_routing(layer));
  int compared = 0;
  each_world([&](Mesh& mesh) {
    if (mesh.world() > device_count()) return;
    for (const int degree : degrees(mesh.world())) {
      if (degree == 1) continue;
      for (const double factor : {0.0, 0.4}) {
        SCOPED_TRACE(layer.describe() + ", degree " + std::to_string(degree));
        RunLayer run{.options = {.expert_degree = degree,
                                 .capacity_factor = factor,
                                 .dispatch = moe::Dispatch::rows,
                                 .backend = "cuda",
                                 .transport = "peer"},
                     .calls = 2,
                     .empty_rank = factor > 0};
        const LayerResult stores = run_layer(mesh, layer, run);
        run.options.transport = "nccl";
        const LayerResult messages = run_layer(mesh, layer, run);
        expect_same(messages, stores, true);
        expect_near(layer, messages, truth);
        if (mesh.rank() == 0) ++compared;
      }
    }
  });
  if (compared == 0) GTEST_SKIP() << "one GPU for each of several ranks is wanted";
}

TEST_F(MoeOnGpu, RefusesWhatIsNotBuilt) {
  LayerConfig many = given(DType::f32);
  many.experts = 1024;
  Mesh mesh = Mesh::single();
  EXPECT_THROW(moe::Layer(mesh, many, {.max_tokens = 4, .backend = "cuda"}), Unsupported);
}

/// A rank that does not come: the others stop at what they wait for, on the host.
TEST_F(MoeOnGpu, TurnsALostRankIntoATimeout) {
  const LayerCase layer = random_layer(951, given(DType::f32), 8);
  each_world(
      [&](Mesh& mesh) {
        if (mesh.world() < 2) return;
        const int degree = degrees(mesh.world()).back();
        if (degree != mesh.world()) return;
        moe::Layer made(mesh, layer.config,
                        {.expert_degree = degree, .max_tokens = 8, .backend = "cuda"});
        if (mesh.rank() == 1) return std::this_thread::sleep_for(std::chrono::milliseconds(6000));
        moe::Step step = made.make_step();
        const std::int64_t local = made.local_experts();
        DeviceBytes memory(std::int64_t{1} << 20, made.device());
        const auto cube = [&](std::int64_t a, std::int64_t b) {
          return TensorView(memory.data(), DType::f32, {local, a, b});
        };
        const TensorView x(memory.data(), DType::f32, {0, layer.config.hidden});
        const moe::LayerWeights weights{.experts = {cube(13, 19), cube(13, 19), cube(19, 13)}};
        const moe::Routing none{.tokens = 0, .k = 3, .experts = 24};
        const Deadline clock(100.0);
        EXPECT_THROW(made.forward(x, weights, none, x, step), Error);
        EXPECT_LT(clock.elapsed_s(), 10.0);
      },
      {.timeout_s = 2.5, .log = {.level = static_cast<int>(LogLevel::off)}});
}

}  // namespace
}  // namespace annulus::testing
