// Products by cuBLAS against the CPU's, a call each on several streams and as one grouped call.
#include "moe/kernels/cuda/blas.h"
#include "moe/kernels/dispatch.h"
#include "runtime/base/dtype.h"
#include "tests/gpu/mirror.h"
#include "tests/support/random.h"

#include <annulus/error.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

namespace annulus::testing {
namespace {

using moe::Product;
using moe::cuda::Blas;
using moe::cuda::BlasWay;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

enum class Form { forward, input_gradient, weight_gradient };

/// Products of some experts over rows [first, first + rows) each, in one of the layer's forms.
struct Set {
  Form form;
  DType in, out;
  std::vector<std::int64_t> rows;
  std::int64_t ffn = 48, hidden = 40;

  std::int64_t total() const {
    std::int64_t n = 0;
    for (const std::int64_t r : rows) n += r;
    return n;
  }
  bool by_weight() const { return form == Form::weight_gradient; }
  std::int64_t out_width() const { return form == Form::forward ? ffn : hidden; }
  std::int64_t in_width() const { return form == Form::forward ? hidden : ffn; }
};

struct Memory {
  std::byte *left, *right, *result;
};

void set_shape(Product& p, std::int64_t m, std::int64_t n, std::int64_t k) {
  p.m = m;
  p.n = n;
  p.k = k;
}

/// forward c = x w^T, input gradient c = dy w, weight gradient c += dy^T x.
std::vector<Product> products_of(const Set& s, const Memory& m) {
  std::vector<Product> products;
  const std::int64_t element = size_of(s.in), element_out = size_of(s.out);
  std::int64_t first = 0;
  for (std::size_t e = 0; e < s.rows.size(); ++e) {
    const auto i = static_cast<std::int64_t>(e);
    const std::int64_t rows = s.rows[e], wide = s.in_width(), out = s.out_width();
    Product p;
    const std::byte* left = m.left + first * wide * element;
    if (s.by_weight()) {
      set_shape(p, s.ffn, s.hidden, rows);
      p.a = {left, s.in, 1, s.ffn};
      p.b = {m.right + first * s.hidden * element, s.in, s.hidden, 1};
      p.c = {m.result + i * s.ffn * s.hidden * element_out, s.out, s.hidden};
      p.add = i % 2 == 0;  // the others are assigned
    } else {
      set_shape(p, rows, out, wide);
      p.a = {left, s.in, wide, 1};
      const std::byte* weights = m.right + i * s.ffn * s.hidden * element;
      p.b = s.form == Form::forward ? moe::Operand{weights, s.in, 1, s.hidden}
                                    : moe::Operand{weights, s.in, s.hidden, 1};
      p.c = {m.result + first * out * element_out, s.out, out};
    }
    products.push_back(p);
    first += rows;
  }
  return products;
}

std::vector<std::byte> random_elements(DType dtype, std::int64_t n, std::uint64_t seed) {
  const auto values = random_normal(n, seed);
  std::vector<std::byte> bytes(at(n * size_of(dtype)));
  for (std::int64_t i = 0; i < n; ++i) store_f64(bytes.data(), dtype, i, values[at(i)]);
  return bytes;
}

void expect_as_host(const Set& s, Blas& blas, std::uint64_t seed) {
  SCOPED_TRACE("seed " + std::to_string(seed) + ", form " +
               std::to_string(static_cast<int>(s.form)));
  const auto experts = static_cast<std::int64_t>(s.rows.size());
  const std::int64_t weights = experts * s.ffn * s.hidden;
  auto left = random_elements(s.in, s.total() * s.in_width(), seed);
  auto right = random_elements(s.in, s.by_weight() ? s.total() * s.hidden : weights, seed + 1);
  const std::int64_t results = s.by_weight() ? weights : s.total() * s.out_width();
  auto got = random_elements(s.out, results, seed + 2);
  if (!s.by_weight()) std::ranges::fill(got, std::byte{0xff});
  auto want = got;
  const moe::Kernel& cpu = moe::kernel("cpu");
  std::vector<std::byte> workspace(at(cpu.workspace_bytes(1)));
  const auto host = products_of(s, {left.data(), right.data(), want.data()});
  cpu.multiply(host, {.threads = 1, .workspace = workspace});

  Mirror mirror;
  const auto bytes = [](const auto& v) { return static_cast<std::int64_t>(v.size()); };
  std::byte* const left_there = mirror.of(left.data(), bytes(left));
  std::byte* const right_there = mirror.of(right.data(), bytes(right));
  const auto device = products_of(s, {left_there, right_there, mirror.of(got.data(), bytes(got))});
  std::int64_t flops = 0;
  moe::kernel("cuda").multiply(device, {.flops = &flops, .library = &blas});
  mirror.download();
  EXPECT_EQ(flops, 2 * s.total() * s.ffn * s.hidden);
  const double u = s.out == DType::f32 ? 1e-5 : s.out == DType::bf16 ? 0x1p-7 : 0x1p-10;
  for (std::int64_t i = 0; i < results; ++i) {
    const double w = load_f64(want.data(), s.out, i);
    ASSERT_NEAR(load_f64(got.data(), s.out, i), w, u * (8 + std::abs(w))) << i;
  }
}

/// Null, and the test is skipped, where the machine has no cuBLAS.
std::unique_ptr<Blas> made_blas(int lanes, std::string& why) {
  try {
    return std::make_unique<Blas>(lanes);
  } catch (const Unsupported& error) {
    why = error.what();
    return nullptr;
  }
}

TEST(MoeKernelsProducts, EqualTheHostsInEveryForm) {
  std::string why;
  const auto made = made_blas(3, why);
  if (made == nullptr) GTEST_SKIP() << why;
  Blas& blas = *made;
  std::uint64_t seed = 0;
  for (const BlasWay way : {BlasWay::best, BlasWay::lanes, BlasWay::grouped, BlasWay::own}) {
    blas.set_way(way);
    for (const DType in : {DType::bf16, DType::f32, DType::f16}) {
      for (const Form form : {Form::forward, Form::input_gradient, Form::weight_gradient}) {
        const DType out = form == Form::weight_gradient ? DType::f32 : in;
        expect_as_host({form, in, out, {33, 0, 1, 130, 7}}, blas, ++seed);
        expect_as_host({form, in, out, {16}}, blas, ++seed);
        expect_as_host({form, in, out, {0, 0}}, blas, ++seed);
        expect_as_host({form, in, out, {5, 9}, 7, 3}, blas, ++seed);  // no 16 bytes anywhere
      }
    }
    expect_as_host({Form::forward, DType::bf16, DType::f32, {20, 3}}, blas, ++seed);
    // More pointers than one batch of them holds.
    expect_as_host(
        {Form::forward, DType::bf16, DType::bf16, std::vector<std::int64_t>(300, 2), 16, 16}, blas,
        ++seed);
  }
}

/// The same call again has the same bits: what a stream of ours runs has a workspace of its own.
TEST(MoeKernelsProducts, HaveTheSameBitsAgain) {
  std::string why;
  const auto made = made_blas(4, why);
  if (made == nullptr) GTEST_SKIP() << why;
  Blas& blas = *made;
  auto left = random_elements(DType::bf16, 700 * 64, 1);
  auto right = random_elements(DType::bf16, 5 * 96 * 64, 2);
  const Set s{Form::forward, DType::bf16, DType::bf16, {300, 20, 0, 250, 130}, 96, 64};
  std::vector<std::vector<std::byte>> runs;
  for (int run = 0; run < 3; ++run) {
    std::vector<std::byte> got(at(700 * 96 * 2), std::byte{0xff});
    Mirror mirror;
    std::byte* const left_there = mirror.of(left.data(), 700 * 64 * 2);
    std::byte* const right_there = mirror.of(right.data(), 5 * 96 * 64 * 2);
    const auto there = mirror.of(got.data(), 700 * 96 * 2);
    moe::kernel("cuda").multiply(products_of(s, {left_there, right_there, there}),
                                 {.library = &blas});
    mirror.download();
    runs.push_back(got);
  }
  EXPECT_EQ(runs[0], runs[1]);
  EXPECT_EQ(runs[0], runs[2]);
}

}  // namespace
}  // namespace annulus::testing
