// The grouped product for Hopper against sums in f64. Elements are small whole numbers, so that
// every sum in f32 is exact: results are equal to the bit, whatever the order.
#include "runtime/base/dtype.h"
#include "tests/moe/kernels/grouped_launch.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace annulus::testing {
namespace {

using moe::Product;
using moe::sm90::Tuning;

constexpr std::int64_t kGuard = 3;  ///< rows of the result that are nobody's
constexpr std::uint16_t kPoison = 0x7fab;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

struct Case {
  std::vector<std::int64_t> rows;
  std::int64_t n, k;
  bool across = false;
  int band = 2;
  int blocks = 3;
  std::int64_t spare = 0;  ///< elements between rows of all operands
};

std::vector<std::uint16_t> whole_numbers(std::int64_t count, std::mt19937_64& random) {
  std::vector<std::uint16_t> values(at(count));
  for (std::uint16_t& x : values) {
    x = f32_to_bf16(static_cast<float>(static_cast<int>(random() % 7) - 3));
  }
  return values;
}

/// Everything of a case, with experts' products.
struct Problem {
  explicit Problem(const Case& c, std::uint64_t seed)
      : given(c), lda(c.k + c.spare), ldb((c.across ? c.n : c.k) + c.spare), ldc(c.n + c.spare) {
    std::mt19937_64 random(seed);
    for (const std::int64_t r : c.rows) total += r;
    matrix = (c.across ? c.k : c.n) * ldb;
    a = whole_numbers(total * lda, random);
    b = whole_numbers(static_cast<std::int64_t>(c.rows.size()) * matrix, random);
    result.assign(at((total + kGuard) * ldc), kPoison);
    std::int64_t first = 0;
    for (std::size_t e = 0; e < c.rows.size(); ++e) {
      Product p;
      p.m = c.rows[e];
      p.n = c.n;
      p.k = c.k;
      p.a = {a.data() + first * lda, DType::bf16, lda, 1};
      const void* weights = b.data() + static_cast<std::int64_t>(e) * matrix;
      p.b = c.across ? moe::Operand{weights, DType::bf16, ldb, 1}
                     : moe::Operand{weights, DType::bf16, 1, ldb};
      p.c = {result.data() + first * ldc, DType::bf16, ldc};
      products.push_back(p);
      first += c.rows[e];
    }
  }
  GroupedMemory memory() {
    const auto size = [](const auto& v) { return static_cast<std::int64_t>(v.size()); };
    return {a.data(), b.data(), result.data(), size(a), size(b), size(result)};
  }
  double sum(std::int64_t row, std::int64_t expert, std::int64_t n) const {
    double s = 0;
    for (std::int64_t k = 0; k < given.k; ++k) {
      const std::int64_t of = given.across ? k * ldb + n : n * ldb + k;
      s += static_cast<double>(bf16_to_f32(a[at(row * lda + k)])) *
           static_cast<double>(bf16_to_f32(b[at(expert * matrix + of)]));
    }
    return s;
  }

  Case given;
  std::int64_t lda, ldb, ldc, total = 0, matrix = 0;
  std::vector<std::uint16_t> a, b, result;
  std::vector<Product> products;
};

void expect_exact(const Case& c, Tuning tuning, std::uint64_t seed) {
  SCOPED_TRACE("seed " + std::to_string(seed) + ", tile " +
               std::to_string(moe::sm90::tile_rows_of(tuning)) + " x " +
               std::to_string(tuning.columns) + ", stages " + std::to_string(tuning.stages) +
               (c.across ? ", across" : ""));
  Problem p(c, seed);
  const auto call = moe::sm90::grouped_of(moe::cuda::gemms_of(p.products));
  ASSERT_TRUE(call.has_value());
  launch_grouped(*call, p.memory(), tuning, c.band, c.blocks, seed);
  std::int64_t row = 0;
  for (std::size_t e = 0; e < c.rows.size(); ++e) {
    for (std::int64_t i = 0; i < c.rows[e]; ++i, ++row) {
      for (std::int64_t n = 0; n < c.n; ++n) {
        const double want = p.sum(row, static_cast<std::int64_t>(e), n);
        ASSERT_EQ(p.result[at(row * p.ldc + n)], f32_to_bf16(static_cast<float>(want)))
            << "row " << row << " of expert " << e << ", column " << n << ": want " << want;
      }
      for (std::int64_t n = c.n; n < p.ldc; ++n) ASSERT_EQ(p.result[at(row * p.ldc + n)], kPoison);
    }
  }
  for (std::int64_t i = row * p.ldc; i < static_cast<std::int64_t>(p.result.size()); ++i) {
    ASSERT_EQ(p.result[at(i)], kPoison) << "behind the last row";
  }
}

class MoeKernelsGrouped : public ::testing::TestWithParam<Tuning> {
 protected:
  void SetUp() override {
    if (!may_launch_grouped()) GTEST_SKIP() << "no Hopper GPU";
  }
};

TEST_P(MoeKernelsGrouped, OddRowsEmptyExpertsAndTails) {
  std::uint64_t seed = 10;
  for (const bool across : {false, true}) {
    expect_exact({{33, 0, 1, 130, 7}, 264, 200, across}, GetParam(), ++seed);
    expect_exact({{0, 0, 1}, 8, 8, across}, GetParam(), ++seed);          // a block has no tile
    expect_exact({{200}, 304, 64, across, 1, 2, 8}, GetParam(), ++seed);  // rows lie apart
    expect_exact({{0, 450, 0}, 72, 328, across, 3, 2}, GetParam(), ++seed);
  }
}

/// Rings of stages go round many times, bands are cut, and one block takes all of it.
TEST_P(MoeKernelsGrouped, OneBlockTakesManyTiles) {
  expect_exact({{70, 300, 64, 129}, 520, 136, false, 2, 1}, GetParam(), 30);
  expect_exact({{70, 300, 64, 129}, 520, 136, true, 8, 1}, GetParam(), 31);
}

INSTANTIATE_TEST_SUITE_P(Tunings, MoeKernelsGrouped, ::testing::ValuesIn(moe::sm90::kTunings));

/// What does not suit is for cuBLAS.
TEST(MoeKernelsGroupedOf, TakesWhatItCanAlone) {
  const Case good{{5, 0, 9}, 16, 24};
  const auto of = [](const std::vector<Product>& products) {
    return moe::sm90::grouped_of(moe::cuda::gemms_of(products));
  };
  Problem p(good, 1);
  const auto call = of(p.products);
  ASSERT_TRUE(call.has_value());
  EXPECT_FALSE(call->across);
  ASSERT_EQ(call->told.groups, 2);
  EXPECT_EQ(call->told.table[0].first, 5);  // the heaviest is first
  EXPECT_EQ(call->told.table[0].rows, 9);
  EXPECT_EQ(call->b.strides[1] * static_cast<std::uint64_t>(call->told.table[0].expert),
            2U * 2 * 16 * 24);
  EXPECT_EQ(call->a.extents[1], 14U);

  EXPECT_FALSE(of({}).has_value());
  EXPECT_FALSE(of(Problem({{5, 9}, 12, 24}, 1).products).has_value()) << "pieces of n";
  EXPECT_FALSE(of(Problem({{5, 9}, 16, 20}, 1).products).has_value()) << "pieces of k";
  const auto without = [&](auto change) {
    Problem q(good, 1);
    change(q.products[2]);
    return of(q.products).has_value();
  };
  EXPECT_TRUE(without([](Product&) {}));
  EXPECT_FALSE(without([](Product& x) { x.n = 8; }));
  EXPECT_FALSE(without([](Product& x) {
    x.c.data = static_cast<std::byte*>(x.c.data) + 32;  // a row further
  }));
  EXPECT_FALSE(without([](Product& x) { x.a.data = static_cast<const std::byte*>(x.a.data) + 48; }))
      << "a row between experts";
  EXPECT_FALSE(of(Problem({std::vector<std::int64_t>(257, 1), 8, 8}, 1).products).has_value());
}

}  // namespace
}  // namespace annulus::testing
