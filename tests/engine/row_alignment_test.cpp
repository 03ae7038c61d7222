// What a query tells of a kernel's limits is a fallback with its reason; what only a call shows,
// rows that do not suit it, is said in the log, once a session.

#include "attention/kernels/dispatch.h"
#include "runtime/engine/shapes.h"

#include <annulus/annulus.h>

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace annulus::testing {
namespace {

RankPlan plan_of(Pass pass, int world) {
  PlanRequest r{
      .problem = {.seq = 64, .heads = 2, .head_dim = 8}, .mesh = {.ring = world}, .pass = pass};
  r.options.stage_caller = true;
  return make_plan(r).rank(0);
}

TEST(RowAlignment, IsOfTensorsThatKernelsMeet) {
  alignas(16) static float data[4096] = {};
  const TensorView whole(data, DType::f32, {1, 64, 2, 8});
  TensorView shifted = whole;
  shifted.data = data + 1;
  TensorView wide = whole;
  wide.strides[1] = 18;
  const RankPlan alone = plan_of(Pass::forward, 1);
  const RankPlan staged = plan_of(Pass::forward, 2);
  for (const Role role : {Role::q, Role::k, Role::v, Role::out}) {
    EXPECT_TRUE(engine::rows_suit(alone, role, whole, 16));
    EXPECT_FALSE(engine::rows_suit(alone, role, shifted, 16)) << engine::name_of(role);
    EXPECT_FALSE(engine::rows_suit(alone, role, wide, 16)) << engine::name_of(role);
    EXPECT_TRUE(engine::rows_suit(alone, role, shifted, 4));
    EXPECT_TRUE(engine::rows_suit(alone, role, shifted, 0));
  }
  EXPECT_FALSE(engine::rows_suit(staged, Role::q, shifted, 16));
  EXPECT_TRUE(engine::rows_suit(staged, Role::k, shifted, 16)) << "the arena's are met, not these";
  EXPECT_TRUE(engine::rows_suit(alone, Role::lse, shifted, 16));
}

/// flash2 under another name, which wants rows of 16 bytes and a scale above 0.
attn::Kernel picky() {
  attn::Kernel row = attn::find_kernel("flash2", {});
  row.name = "picky";
  row.row_alignment = 16;
  row.refuses = [](const attn::KernelQuery& query) -> std::string {
    return query.softmax_scale > 0.0 ? "" : "serves a softmax_scale above 0";
  };
  return row;
}

struct Log {
  std::vector<std::string> warnings;

  Mesh mesh() {
    MeshOptions options;
    options.log.sink = [this](LogLevel level, std::string_view text) {
      if (level == LogLevel::warn) warnings.emplace_back(text);
    };
    return Mesh::single(options);
  }
};

TEST(RowAlignment, IsToldOnceASession) {
  const attn::RegisteredKernel kernel(picky());
  Log log;
  Mesh mesh = log.mesh();
  const Problem problem{.seq = 64, .heads = 2, .head_dim = 8};
  Session session(mesh, {.max_problem = problem, .kernel = "picky", .backward = false});
  Attention attention(session, problem, {.kernel = "picky"});
  alignas(16) static float in[2048] = {};
  alignas(16) static float out[2048] = {};
  std::vector<float> lse(128);
  const auto call = [&](int shift) {
    const TensorView x(in + shift, DType::f32, {1, 64, 2, 8});
    attention.forward(x, x, x, {out, DType::f32, {1, 64, 2, 8}},
                      {lse.data(), DType::f32, {1, 2, 64}});
  };
  call(0);
  EXPECT_EQ(log.warnings.size(), 0U);
  call(1);
  call(1);
  ASSERT_EQ(log.warnings.size(), 1U);
  EXPECT_NE(log.warnings[0].find("rows of q are not aligned to 16 bytes, which picky wants"),
            std::string::npos)
      << log.warnings[0];
}

TEST(SoftmaxScale, IsAReasonToFallBack) {
  const attn::RegisteredKernel kernel(picky());
  Log log;
  Mesh mesh = log.mesh();
  for (const double scale : {1.0, 0.0, -0.5}) {
    const Problem problem{.seq = 64, .heads = 2, .head_dim = 8, .softmax_scale = scale};
    Session session(mesh, {.max_problem = problem, .kernel = "picky", .backward = false});
    const Attention attention(session, problem, {.kernel = "picky"});
    EXPECT_EQ(attention.kernel_used(), scale > 0.0 ? "picky" : "flash2");
    EXPECT_EQ(attention.fallback_reason().find("softmax_scale above 0") != std::string::npos,
              scale <= 0.0)
        << attention.fallback_reason();
  }
  KernelAsk ask;
  EXPECT_EQ(kernel_refusal("picky", ask), "");
  ask.softmax_scale = 0.0;
  EXPECT_EQ(kernel_refusal("picky", ask), "serves a softmax_scale above 0");
}

/// Said before the device is asked for, so that a machine without one tells too.
TEST(SoftmaxScale, IsAskedForByHopper) {
  KernelAsk ask{.backend = "cuda", .dtype = DType::bf16, .head_dim = 128, .head_dim_v = 128};
  for (const KernelInfo& kernel : kernels_built()) {
    if (kernel.name != "hopper") continue;
    EXPECT_EQ(kernel_refusal("hopper", ask).find("softmax_scale"), std::string::npos);
    for (const double scale : {0.0, -0.3}) {
      ask.softmax_scale = scale;
      EXPECT_EQ(kernel_refusal("hopper", ask), "serves a softmax_scale above 0");
    }
  }
}

}  // namespace
}  // namespace annulus::testing
