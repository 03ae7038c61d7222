// Gates against moe/kernels/cpu, which float64 holds (activate_test of
// moe_layer).
#include "moe/kernels/dispatch.h"
#include "runtime/base/dtype.h"
#include "tests/moe/kernels/launches.h"
#include "tests/support/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace annulus::testing {
namespace {

using moe::ActivateParams;
using moe::Activation;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

struct Shape {
  DType dtype = DType::f32;
  Activation activation = Activation::swiglu;
  std::int64_t rows = 0, ffn = 0;
};

std::vector<std::byte> stored(DType dtype, const std::vector<double>& values) {
  std::vector<std::byte> bytes(values.size() * at(size_of(dtype)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    store_f64(bytes.data(), dtype, static_cast<std::int64_t>(i), values[i]);
  }
  return bytes;
}

/// What one back end makes of it. d(hidden) takes the place of hidden where `in_place`.
struct Result {
  std::vector<std::byte> activated, again, dhidden;
  std::vector<float> dweights;
};

template <typename Run>
Result result_of(const Shape& s, std::vector<std::byte> hidden, const std::vector<std::byte>& da,
                 const std::vector<float>& weights, bool in_place, const Run& run) {
  const std::vector<double> nan(at(s.rows * moe::hidden_width(s.activation, s.ffn)), NAN);
  Result out{stored(s.dtype, std::vector<double>(at(s.rows * s.ffn), NAN)), {}, {}, {}};
  out.again = out.activated;
  out.dhidden = stored(s.dtype, nan);
  out.dweights.assign(at(s.rows), NAN);
  ActivateParams p{.activation = s.activation,
                   .dtype = s.dtype,
                   .rows = s.rows,
                   .ffn = s.ffn,
                   .hidden = hidden.data(),
                   .weights = weights.empty() ? nullptr : weights.data(),
                   .activated = out.activated.data(),
                   .dactivated = da.data(),
                   .dhidden = in_place ? hidden.data() : out.dhidden.data(),
                   .dweights = out.dweights.data()};
  run(p, false);
  p.activated = out.again.data();
  run(p, true);
  if (in_place) out.dhidden = hidden;
  return out;
}

void expect_near(const Shape& s, const std::vector<std::byte>& got,
                 const std::vector<std::byte>& want) {
  // exponentials of two libraries, then one rounding each
  const double u = s.dtype == DType::f32 ? 2e-6 : s.dtype == DType::bf16 ? 0x1p-7 : 0x1p-10;
  const auto n = static_cast<std::int64_t>(want.size()) / size_of(s.dtype);
  for (std::int64_t i = 0; i < n; ++i) {
    const double w = load_f64(want.data(), s.dtype, i);
    ASSERT_NEAR(load_f64(got.data(), s.dtype, i), w, u * (1 + std::abs(w))) << i;
  }
}

void expect_as_host(const Shape& s, bool wide, std::uint64_t seed) {
  const bool in_place = seed % 2 == 0;
  SCOPED_TRACE("seed " + std::to_string(seed) + ", ffn " + std::to_string(s.ffn));
  auto values = random_normal(s.rows * moe::hidden_width(s.activation, s.ffn), seed, 3.0);
  values[0] = -200.0;  // exp overflows
  const auto hidden = stored(s.dtype, values);
  const auto da = stored(s.dtype, random_normal(s.rows * s.ffn, seed + 100));
  std::vector<float> weights;
  for (std::int64_t r = 0; r < s.rows && seed % 3 != 0; ++r) {
    weights.push_back(0.1F * static_cast<float>(r));
  }
  const moe::Kernel& cpu = moe::kernel("cpu");
  std::vector<std::byte> workspace(at(cpu.workspace_bytes(1)));
  const moe::LaunchContext context{.threads = 1, .workspace = workspace};
  const Result want =
      result_of(s, hidden, da, weights, false, [&](const ActivateParams& p, bool backward) {
        (backward ? cpu.activate_backward : cpu.activate)(p, context);
      });
  const Result got = result_of(
      s, hidden, da, weights, in_place,
      [&](const ActivateParams& p, bool backward) { launch_activate(p, backward, wide, seed); });
  EXPECT_EQ(got.activated, got.again) << "backward recomputes what forward had";
  expect_near(s, got.activated, want.activated);
  expect_near(s, got.dhidden, want.dhidden);
  for (std::size_t r = 0; r < got.dweights.size(); ++r) {
    ASSERT_NEAR(got.dweights[r], want.dweights[r], 1e-4 * (1 + std::abs(want.dweights[r])));
  }
}

TEST(MoeKernelsActivate, EqualsTheHostsForwardAndBackward) {
  std::uint64_t seed = 0;
  for (const DType dtype : {DType::bf16, DType::f32, DType::f16}) {
    for (const Activation activation : {Activation::swiglu, Activation::gelu}) {
      for (const std::int64_t ffn : {1, 15, 131}) {
        expect_as_host({dtype, activation, 3, ffn}, false, ++seed);
      }
      for (const std::int64_t ffn : {8, 48, 131 * 8}) {
        expect_as_host({dtype, activation, 3, ffn}, true, ++seed);
      }
    }
  }
}

}  // namespace
}  // namespace annulus::testing
