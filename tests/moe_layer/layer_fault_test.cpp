#include "comm/mesh.h"
#include "runtime/base/clock.h"
#include "tests/moe_layer/run_layer.h"
#include "tests/support/each_world.h"

#include <annulus/error.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace annulus::testing {
namespace {

using moe::LayerConfig;
using moe::LayerOptions;
using ::testing::HasSubstr;

/// What fails here is expected, and each rank would log it.
MeshOptions quiet(double timeout_s) {
  return {.timeout_s = timeout_s, .log = {.level = static_cast<int>(LogLevel::off)}};
}

LayerConfig small() { return {.hidden = 4, .ffn = 3, .experts = 120, .k = 2}; }

template <typename E>
std::string thrown(const std::function<void()>& body) {
  try {
    body();
  } catch (const E& error) {
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

/// A layer, weights and tokens that one rank needs for a call.
struct Ready {
  explicit Ready(Mesh& mesh)
      : layer(mesh, small(), {.expert_degree = mesh.world(), .max_tokens = 2}),
        step(layer.make_step()),
        matrices(static_cast<std::size_t>(layer.local_experts() * 12), 0.5F),
        x(8, 1.0F),
        y(8, 0.0F) {
    const std::int64_t n = layer.local_experts();
    weights.experts = {TensorView(matrices.data(), DType::f32, {n, 3, 4}),
                       TensorView(matrices.data(), DType::f32, {n, 3, 4}),
                       TensorView(matrices.data(), DType::f32, {n, 4, 3})};
    routing = {.tokens = 2,
               .k = 2,
               .experts = 120,
               .indices = {0, 119, 119, 60},
               .weights = {0.5F, 0.5F, 0.5F, 0.5F}};
  }
  void forward() {
    layer.forward(TensorView(x.data(), DType::f32, {2, 4}), weights, routing,
                  TensorView(y.data(), DType::f32, {2, 4}), step);
  }
  moe::Layer layer;
  moe::Step step;
  std::vector<float> matrices, x, y;
  moe::LayerWeights weights;
  moe::Routing routing;
};

TEST(MoeLayerFault, TimeoutNamesRankAndItem) {
  each_world(
      [](Mesh& mesh) {
        if (mesh.world() != 2 && mesh.world() != 4) return;  // each takes two seconds
        Ready ready(mesh);
        ready.forward();
        if (mesh.rank() == 1) return std::this_thread::sleep_for(std::chrono::milliseconds(900));
        const Deadline clock(100.0);
        const std::string text = thrown<Error>([&] { ready.forward(); });
        EXPECT_THAT(text, HasSubstr("rank " + std::to_string(mesh.rank())));
        EXPECT_THAT(text, HasSubstr("moe counts, round 0: counts of rows"));
        EXPECT_THAT(text, HasSubstr("rank 1"));
        EXPECT_LE(clock.elapsed_s(), 0.4 + 3.0);
        EXPECT_THAT(thrown<CommError>([&] { ready.forward(); }), HasSubstr("rebuild it"));
      },
      quiet(0.4), 2);
}

TEST(MoeLayerFault, ARankThatFailsEndsTheOthers) {
  each_world(
      [](Mesh& mesh) {
        Ready ready(mesh);
        if (mesh.rank() == 0) {
          mesh.impl().communicator->report_failure("device 3 is on fire");
          return;
        }
        const std::string text = thrown<CommError>([&] { ready.forward(); });
        EXPECT_THAT(text, HasSubstr("device 3 is on fire"));
        EXPECT_THAT(text, HasSubstr("this rank was at item 'moe counts, round 0"));
      },
      quiet(20), 2);
}

TEST(MoeLayerFault, RanksAgreeOnWhatTheyMake) {
  each_world(
      [](Mesh& mesh) {
        LayerConfig config = small();
        if (mesh.rank() == 1) config.k = 3;
        const std::string text =
            thrown<CommError>([&] { moe::Layer(mesh, config, {.max_tokens = 2}); });
        EXPECT_THAT(text, HasSubstr("k 3"));
      },
      quiet(20), 2);
}

TEST(MoeLayerFault, RefusesWithValues) {
  each_world([](Mesh& mesh) {
    const auto refused = [&](const std::function<void(LayerConfig&, LayerOptions&)>& change) {
      LayerConfig config = small();
      LayerOptions options{.max_tokens = 2};
      change(config, options);
      return thrown<InvalidArgument>([&] { moe::Layer(mesh, config, options); });
    };
    EXPECT_THAT(refused([](auto& c, auto&) { c.k = 121; }), HasSubstr("k 121 is not in [1, 120]"));
    EXPECT_THAT(refused([](auto& c, auto&) { c.ffn = 0; }), HasSubstr("ffn 0"));
    EXPECT_THAT(refused([](auto& c, auto&) { c.z_beta = 1; }), HasSubstr("need a router"));
    EXPECT_THAT(refused([](auto&, auto& o) { o.expert_degree = 7; }),
                HasSubstr("expert_degree 7 does not divide the world"));
    EXPECT_THAT(refused([](auto&, auto& o) { o.capacity_factor = -1; }),
                HasSubstr("capacity_factor -1"));
    EXPECT_THAT(refused([](auto&, auto& o) { o.backend = "tpu"; }), HasSubstr("backend tpu"));
    EXPECT_THAT(refused([](auto& c, auto&) { c.router = moe::RouterConfig::mixtral(8, 2); }),
                HasSubstr("a router of 8 experts"));
    LayerConfig half = small();
    half.dtype = DType::f16;
    EXPECT_THAT(thrown<Unsupported>([&] { moe::Layer(mesh, half, {}); }), HasSubstr("f16"));
    EXPECT_THAT(thrown<Unsupported>([&] { moe::Layer(mesh, small(), {.backend = "cuda"}); }),
                HasSubstr("built: cpu"));

    Ready ready(mesh);
    const TensorView three(ready.x.data(), DType::f32, {3, 4});
    const TensorView x(ready.x.data(), DType::f32, {2, 4});
    const TensorView y(ready.y.data(), DType::f32, {2, 4});
    const auto call = [&](const TensorView& in, const moe::Routing& routing) {
      return thrown<InvalidArgument>(
          [&] { ready.layer.forward(in, ready.weights, routing, y, ready.step); });
    };
    EXPECT_THAT(call(three, ready.routing), HasSubstr("x is f32[3,4], not f32[tokens <= 2,4]"));
    moe::Routing wrong = ready.routing;
    wrong.experts = 121;
    EXPECT_THAT(call(x, wrong), HasSubstr("121 experts"));
    EXPECT_THAT(
        thrown<InvalidArgument>([&] { ready.layer.forward(x, ready.weights, y, ready.step); }),
        HasSubstr("no router"));
    EXPECT_THAT(thrown<InvalidArgument>(
                    [&] { ready.layer.backward(y, x, ready.weights, y, {}, ready.step); }),
                HasSubstr("forward is its last use"));
    ready.forward();  // what was refused harmed nothing
  });
}

TEST(MoeLayerFault, LoadSaysWhatImbalanceCosts) {
  each_world([](Mesh& mesh) {
    Ready ready(mesh);
    ready.routing.indices = {0, 1, 0, 1};
    ready.forward();
    const moe::LayerLoad& load = ready.step.load();
    const std::int64_t ranks = mesh.world();
    EXPECT_EQ(load.expert_rows[0], 2 * ranks);
    EXPECT_EQ(load.expert_rows[2], 0);
    EXPECT_EQ(load.rank_rows[0], 4 * ranks);
    EXPECT_DOUBLE_EQ(load.experts.max_over_mean, 60.0);
    EXPECT_DOUBLE_EQ(load.rank_max_over_mean, static_cast<double>(ranks));
    EXPECT_EQ(load.rounds, 1);
    // Two products of 3 x 4 in and one out for each row, all of them on rank 0.
    EXPECT_EQ(load.forward_flops, mesh.rank() == 0 ? 4 * ranks * 2 * 3 * 3 * 4 : 0);
    EXPECT_EQ(load.forward_bytes_sent > 0, ranks > 1);
  });
}

}  // namespace
}  // namespace annulus::testing
