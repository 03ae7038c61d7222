// Products as BLAS calls: a BLAS of three loops, column-major, against the CPU's products.
#include "moe/kernels/cuda/gemms.h"
#include "moe/kernels/dispatch.h"
#include "tests/support/random.h"

#include <annulus/error.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace annulus::testing {
namespace {

using moe::Product;
using moe::cuda::Gemm;
using moe::cuda::gemms_of;
using moe::cuda::GemmWork;

/// f32, rows with gaps; NaN all over until filled.
struct Matrix {
  Matrix(std::int64_t rows, std::int64_t columns, std::uint64_t seed)
      : pitch(columns + 3), values(static_cast<std::size_t>(rows * pitch), NAN) {
    const auto normal = random_normal(rows * columns, seed);
    for (std::int64_t i = 0; i < rows * columns; ++i) {
      values[static_cast<std::size_t>(i / columns * pitch + i % columns)] =
          static_cast<float>(normal[static_cast<std::size_t>(i)]);
    }
  }
  moe::Operand operand(bool turned, std::int64_t from = 0) const {
    return {.data = values.data() + from,
            .dtype = DType::f32,
            .row_stride = turned ? 1 : pitch,
            .column_stride = turned ? pitch : 1};
  }
  std::int64_t pitch;
  std::vector<float> values;
};

void blas(const Gemm& g) {
  const auto* a = static_cast<const float*>(g.a);
  const auto* b = static_cast<const float*>(g.b);
  auto* c = static_cast<float*>(g.c);
  for (std::int64_t i = 0; i < g.m; ++i) {
    for (std::int64_t j = 0; j < g.n; ++j) {
      double sum = 0;
      for (std::int64_t k = 0; k < g.k; ++k) {
        const float x = g.turn_a ? a[k + i * g.lda] : a[i + k * g.lda];
        const float y = g.turn_b ? b[j + k * g.ldb] : b[k + j * g.ldb];
        sum += static_cast<double>(x) * static_cast<double>(y);
      }
      float& to = c[i + j * g.ldc];
      to = static_cast<float>(sum) + (g.beta != 0.0F ? g.beta * to : 0.0F);
    }
  }
}

void run(const std::vector<GemmWork>& works) {
  for (const GemmWork& work : works) {
    for (int i = 0; i < std::max(1, work.count); ++i) blas(work.calls[i]);  // count 0: k is 0
  }
}

/// As the CPU has it: c of its own, poisoned or filled alike.
void expect_as_host(Product p, std::uint64_t seed, int calls) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  Matrix got(p.m, p.n, seed + 9);
  if (!p.add) std::ranges::fill(got.values, NAN);
  Matrix want = got;
  p.c = {.data = want.values.data(), .dtype = DType::f32, .row_stride = want.pitch};
  const moe::Kernel& cpu = moe::kernel("cpu");
  std::vector<std::byte> workspace(static_cast<std::size_t>(cpu.workspace_bytes(1)));
  cpu.multiply({&p, 1}, {.threads = 1, .workspace = workspace});
  p.c.data = got.values.data();
  const auto works = gemms_of({&p, 1});
  int count = 0;
  for (const GemmWork& work : works) count += work.count;
  EXPECT_EQ(count, calls);
  run(works);
  for (std::size_t i = 0; i < want.values.size(); ++i) {
    if (std::isnan(want.values[i])) {
      ASSERT_TRUE(std::isnan(got.values[i])) << "a gap was written";
    } else {
      ASSERT_NEAR(got.values[i], want.values[i], 1e-4) << i;
    }
  }
}

TEST(MoeGemms, EveryFormAndShape) {
  std::uint64_t seed = 0;
  for (const auto& [m, n, k] : {std::array{5, 7, 3}, {1, 1, 1}, {1, 9, 4}, {8, 1, 2}, {4, 3, 17}}) {
    for (int form = 0; form < 8; ++form) {
      const bool turned_a = form % 2 == 1, turned_b = form / 2 % 2 == 1;
      const Matrix a(turned_a ? k : m, turned_a ? m : k, ++seed);
      const Matrix b(turned_b ? n : k, turned_b ? k : n, ++seed);
      expect_as_host({.m = m,
                      .n = n,
                      .k = k,
                      .a = a.operand(turned_a),
                      .b = b.operand(turned_b),
                      .c = {},
                      .add = form >= 4},
                     seed, 1);
    }
  }
}

TEST(MoeGemms, EmptyExpertsAreZeroOrLeftAlone) {
  const Matrix a(4, 3, 1), b(3, 5, 2);
  Product p{.m = 4, .n = 5, .k = 0, .a = a.operand(false), .b = b.operand(false), .c = {}};
  expect_as_host(p, 1, 0);
  p.add = true;
  EXPECT_TRUE(gemms_of({&p, 1}).empty());
  p.add = false;
  p.m = 0;
  EXPECT_TRUE(gemms_of({&p, 1}).empty());
}

/// d(hidden) is [gate | up]; where the weights lie one after the other too, it is one sum.
TEST(MoeGemms, ASecondPairIsOneCallWhereItContinues) {
  constexpr std::int64_t kM = 5, kN = 6, kFfn = 4;
  const Matrix a(kM, 2 * kFfn, 1), weights(2 * kFfn, kN, 2), other(kFfn, kN, 3);
  const Product up_first{.m = kM,
                         .n = kN,
                         .k = kFfn,
                         .a = a.operand(false, kFfn),
                         .b = weights.operand(false, kFfn * weights.pitch),
                         .c = {},
                         .k_more = kFfn,
                         .a_more = a.operand(false),
                         .b_more = weights.operand(false)};
  expect_as_host(up_first, 4, 1);
  Product gate_first = up_first;
  std::swap(gate_first.a, gate_first.a_more);
  std::swap(gate_first.b, gate_first.b_more);
  expect_as_host(gate_first, 5, 1);
  Product apart = up_first;
  apart.b_more = other.operand(false);
  expect_as_host(apart, 6, 2);
  apart.k = 0;
  expect_as_host(apart, 7, 1);
}

TEST(MoeGemms, TheHeaviestFirstAndLanesShare) {
  const Matrix a(9, 9, 1), b(9, 9, 2);
  Matrix c(9, 9, 3);
  std::vector<Product> products;
  for (const std::int64_t m : {1, 5, 3, 9, 2}) {
    products.push_back({.m = m,
                        .n = 9,
                        .k = 9,
                        .a = a.operand(false),
                        .b = b.operand(false),
                        .c = {c.values.data(), DType::f32, c.pitch}});
  }
  const auto works = gemms_of(products);
  std::vector<std::int64_t> rows;
  for (const GemmWork& work : works) rows.push_back(work.calls[0].n);
  EXPECT_THAT(rows, ::testing::ElementsAre(9, 5, 3, 2, 1));
  EXPECT_THAT(moe::cuda::deal(works, 2), ::testing::ElementsAre(0, 1, 1, 1, 0));
}

TEST(MoeGemms, RefusesWhatItCannotDo) {
  const Matrix a(3, 3, 1);
  Matrix c(3, 3, 2);
  Product p{.m = 3,
            .n = 3,
            .k = 3,
            .a = a.operand(false),
            .b = a.operand(false),
            .c = {c.values.data(), DType::bf16, 3}};
  EXPECT_THROW((void)gemms_of({&p, 1}), InvalidArgument);
  p.c.dtype = DType::f32;
  p.b.dtype = DType::bf16;
  EXPECT_THROW((void)gemms_of({&p, 1}), InvalidArgument);
  p.a.dtype = p.b.dtype = p.c.dtype = DType::bf16;
  p.add = true;
  EXPECT_THROW((void)gemms_of({&p, 1}), InvalidArgument);
  p.a.dtype = p.b.dtype = DType::f64;
  EXPECT_THROW((void)gemms_of({&p, 1}), Unsupported);
}

}  // namespace
}  // namespace annulus::testing
