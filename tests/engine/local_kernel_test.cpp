// Every local kernel that is built, through the public interface, against float64.
#include "tests/support/oracle.h"

#include <annulus/error.h>
#include <annulus/local_kernel.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace annulus::testing {
namespace {

using ::testing::HasSubstr;

std::vector<float> narrowed(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

/// One call of `kernel` on one head; returns max|out - ref| / max|ref|.
double run(LocalKernel& kernel, const Problem& p) {
  const OracleInputs inputs = random_inputs(oracle_problem(p), 3);
  const OracleResult truth = oracle_attention(p, inputs);
  std::vector<float> q = narrowed(inputs.q);
  std::vector<float> k = narrowed(inputs.k);
  std::vector<float> v = narrowed(inputs.v);
  std::vector<float> out(truth.out.size(), 99);
  std::vector<float> lse(truth.lse.size(), 99);
  const auto view = [&](std::vector<float>& data) {
    return TensorView(data.data(), DType::f32, {p.batch, p.seq, p.heads, p.head_dim});
  };
  kernel.forward(view(q), view(k), view(v), view(out),
                 TensorView(lse.data(), DType::f32, {p.batch, p.heads, p.seq}));
  double worst = 0;
  double largest = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    worst = std::max(worst, std::abs(out[i] - truth.out[i]));
    largest = std::max(largest, std::abs(truth.out[i]));
  }
  for (std::size_t i = 0; i < lse.size(); ++i) {
    EXPECT_NEAR(lse[i], truth.lse[i], 1e-4);
  }
  return worst / largest;
}

Problem problem(std::int64_t batch, std::int64_t seq, std::int64_t dim) {
  Problem p;
  p.batch = batch;
  p.seq = seq;
  p.head_dim = dim;
  p.mask = Mask::full();
  return p;
}

TEST(LocalKernel, EveryKernelMatchesFloat64OnTheClassicSmallShapes) {
  for (const Problem& p : {problem(1, 32, 16), problem(2, 64, 32), problem(4, 128, 64),
                           problem(1, 33, 1), problem(2, 50, 7), problem(1, 64, 16)}) {
    for (const LocalKernelInfo& info : local_kernels(p)) {
      SCOPED_TRACE(info.name);
      ASSERT_EQ(info.refusal, "");
      LocalKernel kernel(p, {.kernel = info.name, .threads = 2});
      EXPECT_EQ(kernel.name(), info.name);
      EXPECT_LT(run(kernel, p), 1e-5);
    }
  }
}

TEST(LocalKernel, SoftmaxScaleIsTaken) {
  Problem p = problem(1, 40, 16);
  p.softmax_scale = 0.1;
  LocalKernel kernel(p);
  EXPECT_LT(run(kernel, p), 1e-5);
}

TEST(LocalKernel, CountsItsProductsAnewInEachCall) {
  const Problem p = problem(2, 128, 64);
  LocalKernel kernel(p, {.kernel = "flash2"});
  run(kernel, p);
  run(kernel, p);
  EXPECT_EQ(kernel.counters().flops, 4 * 2 * 128 * 128 * 64);
  EXPECT_EQ(kernel.counters().materialized_bytes, 0);
}

TEST(LocalKernel, RefusesOtherShapesAndUnknownKernels) {
  const Problem p = problem(1, 8, 16);
  EXPECT_THROW(LocalKernel(p, {.kernel = "none"}), Unsupported);
  LocalKernel kernel(p);
  std::vector<float> data(8 * 16);
  const TensorView good(data.data(), DType::f32, {1, 8, 1, 16});
  const TensorView bad(data.data(), DType::f32, {1, 7, 1, 16});
  const TensorView lse(data.data(), DType::f32, {1, 1, 8});
  try {
    kernel.forward(good, bad, good, good, lse);
    ADD_FAILURE() << "accepted k of 7 tokens";
  } catch (const InvalidArgument& error) {
    EXPECT_THAT(error.what(), HasSubstr("k is f32[1,7,1,16]: must be f32[1,8,1,16]"));
  }
}

}  // namespace
}  // namespace annulus::testing
