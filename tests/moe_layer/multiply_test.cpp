#include "moe/kernels/dispatch.h"
#include "runtime/base/dtype.h"
#include "tests/support/random.h"

#include <annulus/error.h>

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

namespace annulus::testing {
namespace {

using moe::Product;

enum class Form { forward, input_gradient, weight_gradient };

/// Matrices with gaps after each row, NaN all over.
class Matrix {
 public:
  Matrix(DType dtype, std::int64_t rows, std::int64_t columns)
      : dtype_(dtype), pitch_(columns + 3), columns_(columns), rows_(rows) {
    bytes_.assign(static_cast<std::size_t>(rows * pitch_ * size_of(dtype) + 8), std::byte{0xff});
  }

  void fill(std::uint64_t seed) {
    const auto values = random_normal(rows_ * columns_, seed);
    std::size_t i = 0;
    for (std::int64_t r = 0; r < rows_; ++r) {
      for (std::int64_t c = 0; c < columns_; ++c) {
        store_f64(bytes_.data(), dtype_, r * pitch_ + c, values[i++]);
      }
    }
  }

  double at(std::int64_t r, std::int64_t c) const {
    return load_f64(bytes_.data(), dtype_, r * pitch_ + c);
  }
  bool gaps_untouched() const {
    for (std::int64_t r = 0; r < rows_; ++r) {
      for (std::int64_t c = columns_; c < pitch_; ++c) {
        if (!std::isnan(at(r, c))) return false;
      }
    }
    return true;
  }

  /// As it is, or with rows and columns exchanged; from row `first`.
  moe::Operand operand(bool turned, std::int64_t first = 0) const {
    return {.data = bytes_.data() + first * pitch_ * size_of(dtype_),
            .dtype = dtype_,
            .row_stride = turned ? 1 : pitch_,
            .column_stride = turned ? pitch_ : 1};
  }
  moe::Result result(std::int64_t first = 0) {
    return {.data = bytes_.data() + first * pitch_ * size_of(dtype_),
            .dtype = dtype_,
            .row_stride = pitch_};
  }
  bool operator==(const Matrix& other) const { return bytes_ == other.bytes_; }

 private:
  DType dtype_;
  std::int64_t pitch_, columns_, rows_;
  std::vector<std::byte> bytes_;
};

void run(const std::vector<Product>& products, int threads = 1, std::int64_t* flops = nullptr) {
  const moe::Kernel& kernel = moe::kernel("cpu");
  const std::int64_t bytes = kernel.workspace_bytes(threads);
  std::vector<std::byte> workspace(static_cast<std::size_t>(bytes), std::byte{0xff});
  kernel.multiply(products,
                  {.threads = threads, .poll = {}, .flops = flops, .workspace = workspace});
}

/// The matrices of one product in each of the layer's three forms: x w^T, dy w, dy^T x.
struct Case {
  Case(Form form, DType dtype, std::int64_t m, std::int64_t n, std::int64_t k, std::uint64_t seed)
      : turned_a(form == Form::weight_gradient),
        turned_b(form == Form::forward),
        a(dtype, turned_a ? k : m, turned_a ? m : k),
        b(dtype, turned_b ? n : k, turned_b ? k : n),
        c(turned_a ? DType::f32 : dtype, m, n) {
    a.fill(seed);
    b.fill(seed + 1);
    if (turned_a) c.fill(seed + 2);
    product = {.m = m,
               .n = n,
               .k = k,
               .a = a.operand(turned_a),
               .b = b.operand(turned_b),
               .c = c.result(),
               .add = turned_a};
  }
  double a_at(std::int64_t i, std::int64_t j) const { return turned_a ? a.at(j, i) : a.at(i, j); }
  double b_at(std::int64_t i, std::int64_t j) const { return turned_b ? b.at(j, i) : b.at(i, j); }

  bool turned_a, turned_b;
  Matrix a, b, c;
  Product product;
};

TEST(MoeMultiply, EqualsFloat64InEveryFormAndShape) {
  struct Shape {
    std::int64_t m, n, k;
  };
  constexpr Shape kShapes[] = {{1, 1, 1},    {7, 17, 129},  {193, 65, 31}, {13, 257, 260},
                               {400, 33, 5}, {5, 300, 128}, {0, 9, 9},     {9, 7, 0}};
  std::uint64_t seed = 90;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Form form : {Form::forward, Form::input_gradient, Form::weight_gradient}) {
      for (const Shape& s : kShapes) {
        seed += 3;
        SCOPED_TRACE("seed " + std::to_string(seed) + ", form " +
                     std::to_string(static_cast<int>(form)) + ", " + std::to_string(s.m) + " x " +
                     std::to_string(s.n) + " x " + std::to_string(s.k));
        Case test(form, dtype, s.m, s.n, s.k, seed);
        const Matrix before = test.c;
        std::int64_t flops = 5;
        run({test.product}, 2, &flops);
        EXPECT_EQ(flops, 5 + 2 * s.m * s.n * s.k);
        EXPECT_TRUE(test.c.gaps_untouched());
        const double u = test.product.c.dtype == DType::f32 ? 0x1p-24 : 0x1p-8;
        for (std::int64_t i = 0; i < s.m; ++i) {
          for (std::int64_t j = 0; j < s.n; ++j) {
            double sum = test.product.add ? before.at(i, j) : 0.0;
            double size = std::abs(sum);
            for (std::int64_t k = 0; k < s.k; ++k) {
              sum += test.a_at(i, k) * test.b_at(k, j);
              size += std::abs(test.a_at(i, k) * test.b_at(k, j));
            }
            const double sums = 0x1p-24 * static_cast<double>(s.k + 1) * size;
            ASSERT_NEAR(test.c.at(i, j), sum, sums + u * std::abs(sum)) << i << ", " << j;
          }
        }
      }
    }
  }
}

TEST(MoeMultiply, ARowDoesNotDependOnTheRowsBesideIt) {
  constexpr std::int64_t kM = 211, kN = 70, kK = 300;
  for (const Form form : {Form::forward, Form::input_gradient}) {
    Case whole(form, DType::bf16, kM, kN, kK, 41);
    run({whole.product}, 2);
    Matrix parts(DType::bf16, kM, kN);
    std::vector<Product> products;
    std::int64_t first = 0;
    for (const std::int64_t rows : {1, 6, 11, 193}) {
      Product p = whole.product;
      p.m = rows;
      p.a = whole.a.operand(false, first);
      p.c = parts.result(first);
      products.push_back(p);
      first += rows;
    }
    ASSERT_EQ(first, kM);
    run(products, 1);
    EXPECT_TRUE(parts == whole.c);
  }
}

TEST(MoeMultiply, ASumOverRowsInPartsHasTheBitsOfTheWhole) {
  Case whole(Form::weight_gradient, DType::f32, 40, 50, 333, 52);
  Matrix parts = whole.c;
  run({whole.product}, 2);
  std::int64_t first = 0;
  for (const std::int64_t rows : {1, 127, 0, 205}) {
    Product p = whole.product;
    p.k = rows;
    p.a = whole.a.operand(true, first);
    p.b = whole.b.operand(false, first);
    p.c = parts.result();
    run({p});
    first += rows;
  }
  ASSERT_EQ(first, 333);
  EXPECT_TRUE(parts == whole.c);
}

TEST(MoeMultiply, RefusesWhatItCannotDo) {
  Case test(Form::forward, DType::bf16, 3, 3, 3, 7);
  test.product.add = true;
  EXPECT_THROW(run({test.product}), InvalidArgument);
  EXPECT_THROW(moe::kernel("cpu").multiply({&test.product, 1}, {}), InvalidArgument);
  EXPECT_THROW(moe::kernel("abacus"), Unsupported);
}

}  // namespace
}  // namespace annulus::testing
