// moe::Layer on GPUs gives the same bits for every expert degree, transport and way to move rows,
// as far as products do. cuBLAS chooses the order of a sum by its size, and an expert has other
// rows in a smaller group: so experts are of a kind that no order changes (order_free.h).
#include "comm/nccl/nccl_communicator.h"
#include "tests/moe_layer/order_free.h"
#include "tests/moe_layer/run_layer.h"
#include "tests/support/each_world.h"

#include <annulus/device_memory.h>

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <string>

namespace annulus::testing {
namespace {

using moe::Dispatch;
using moe::LayerConfig;

/// 24 experts, 5 of them a token: degrees 1, 2, 4 and 8.
LayerCase case_of(DType dtype, moe::Activation activation, std::uint64_t seed) {
  const LayerConfig config{
      .hidden = 40, .activation = activation, .dtype = dtype, .experts = 24, .k = 5};
  return order_free_layer(seed, config, 203);
}

/// Every degree that divides the world, against degree 1, where no row travels.
void expect_one_result(Mesh& mesh, const LayerCase& layer, const LayerResult& truth,
                       bool empty_rank) {
  RunLayer run{.options = {.expert_degree = 1, .backend = "cuda"}, .empty_rank = empty_rank};
  const LayerResult one = run_layer(mesh, layer, run);
  expect_near(layer, one, truth);
  const bool by_nccl = comm::nccl::why_not().empty() && mesh.world() <= device_count();
  for (int degree = 2; degree <= mesh.world(); degree *= 2) {
    if (mesh.world() % degree != 0) continue;
    for (const Dispatch dispatch : {Dispatch::rows, Dispatch::tokens}) {
      SCOPED_TRACE(layer.describe() + ", degree " + std::to_string(degree));
      run.options.expert_degree = degree;
      run.options.dispatch = dispatch;
      expect_same(run_layer(mesh, layer, run), one, false);
    }
    if (!by_nccl) continue;
    SCOPED_TRACE(layer.describe() + ", NCCL, degree " + std::to_string(degree));
    run.options.dispatch = Dispatch::rows;
    run.options.transport = "nccl";
    expect_same(run_layer(mesh, layer, run), one, false);
    run.options.transport = "auto";
  }
}

void expect_same_bits(const std::function<void(const RankBody&)>& on_ranks) {
  if (device_count() == 0) GTEST_SKIP() << "no GPU";
  for (const LayerCase& layer : {case_of(DType::f32, moe::Activation::swiglu, 2011),
                                 case_of(DType::bf16, moe::Activation::gelu, 2012)}) {
    const LayerResult truth = oracle_layer(layer, oracle_routing(layer));
    for (const bool empty_rank : {false, true}) {
      std::atomic<bool> ran = false;
      on_ranks([&](Mesh& mesh) {
        expect_one_result(mesh, layer, truth, empty_rank);
        ran = true;
      });
      if (!ran && !::testing::Test::HasFailure()) GTEST_SKIP() << "8 processes are wanted";
    }
  }
}

TEST(MoeSameBits, ForEveryDegreeOfTheWorld) {
  expect_same_bits([](const RankBody& body) { each_world(body); });
}

/// As threads they may share one GPU.
TEST(MoeSameBits, ForDegrees1To8) {
  expect_same_bits([](const RankBody& body) { on_mesh({.ring = 8}, body); });
}

}  // namespace
}  // namespace annulus::testing
