#include "moe/kernels/dispatch.h"
#include "runtime/base/dtype.h"
#include "tests/support/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace annulus::testing {
namespace {

using moe::ActivateParams;
using moe::Activation;

/// The gate of one element in float64, and its derivatives by gate and up.
struct Truth {
  double a = 0, by_gate = 0, by_up = 0;
};

Truth truth(Activation gate, double g, double up) {
  if (gate == Activation::swiglu) {
    const double s = 1.0 / (1.0 + std::exp(-g));
    return {g * s * up, up * s * (1 + g * (1 - s)), g * s};
  }
  const double phi = 0.5 * std::erfc(-g / std::sqrt(2.0));
  return {g * phi, phi + g * std::exp(-0.5 * g * g) / std::sqrt(2 * std::acos(-1.0)), 0};
}

std::vector<std::byte> stored(DType dtype, const std::vector<double>& values) {
  std::vector<std::byte> bytes(values.size() * static_cast<std::size_t>(size_of(dtype)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    store_f64(bytes.data(), dtype, static_cast<std::int64_t>(i), values[i]);
  }
  return bytes;
}

TEST(MoeActivate, EqualsFloat64ForwardAndBackward) {
  const moe::Kernel& kernel = moe::kernel("cpu");
  std::uint64_t seed = 11;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Activation gate : {Activation::swiglu, Activation::gelu}) {
      for (const std::int64_t ffn : {1, 15, 16, 50}) {
        SCOPED_TRACE("seed " + std::to_string(++seed) + ", ffn " + std::to_string(ffn));
        constexpr std::int64_t kRows = 19;
        const std::int64_t width = moe::hidden_width(gate, ffn);
        auto values = random_normal(kRows * width, seed, 3.0);
        values[0] = -200.0;  // exp overflows
        const auto hidden = stored(dtype, values);
        const auto dz = stored(dtype, random_normal(kRows * ffn, seed + 100));
        std::vector<float> weights(kRows), dweights(kRows, NAN);
        for (std::size_t r = 0; r < weights.size(); ++r) weights[r] = 0.1F * static_cast<float>(r);
        const std::vector<double> nan(static_cast<std::size_t>(kRows * width), NAN);
        auto activated = stored(dtype, nan), again = activated, dhidden = activated;
        std::vector<std::byte> workspace(static_cast<std::size_t>(kernel.workspace_bytes(2)),
                                         std::byte{0xff});
        ActivateParams params{.activation = gate,
                              .dtype = dtype,
                              .rows = kRows,
                              .ffn = ffn,
                              .hidden = hidden.data(),
                              .weights = weights.data(),
                              .activated = activated.data(),
                              .dactivated = dz.data(),
                              .dhidden = dhidden.data(),
                              .dweights = dweights.data()};
        const moe::LaunchContext context{
            .threads = 2, .poll = {}, .flops = nullptr, .workspace = workspace};
        kernel.activate(params, context);
        params.activated = again.data();
        kernel.activate_backward(params, context);
        EXPECT_EQ(activated, again) << "backward recomputes what forward had";
        const double u = dtype == DType::f32 ? 4e-6 : 0x1p-8;
        for (std::int64_t r = 0; r < kRows; ++r) {
          double dot = 0, size = 0;
          const double w = static_cast<double>(weights[static_cast<std::size_t>(r)]);
          for (std::int64_t f = 0; f < ffn; ++f) {
            const double g = load_f64(hidden.data(), dtype, r * width + f);
            const double up = gate == Activation::swiglu
                                  ? load_f64(hidden.data(), dtype, r * width + ffn + f)
                                  : 0;
            const double d = load_f64(dz.data(), dtype, r * ffn + f);
            const Truth t = truth(gate, g, up);
            const auto near = [&](const std::vector<std::byte>& got, std::int64_t at, double want) {
              ASSERT_NEAR(load_f64(got.data(), dtype, at), want, u * (1 + std::abs(want)));
            };
            near(activated, r * ffn + f, w * t.a);
            near(dhidden, r * width + f, w * d * t.by_gate);
            if (gate == Activation::swiglu) near(dhidden, r * width + ffn + f, w * d * t.by_up);
            dot += d * t.a;
            size += std::abs(d * t.a);
          }
          ASSERT_NEAR(dweights[static_cast<std::size_t>(r)], dot, 1e-5 * (1 + size));
        }
      }
    }
  }
}

}  // namespace
}  // namespace annulus::testing
