// A whole layer on one device against float64: forward, and every gradient.
#include "moe/device_layer.h"
#include "runtime/base/dtype.h"
#include "tests/moe/kernels/device.h"
#include "tests/moe_layer/run_layer.h"

#include <annulus/error.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace annulus::testing {
namespace {

using moe::Activation;
using moe::DeviceLayer;
using moe::LayerConfig;
using moe::RouterConfig;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// A compact tensor in the device's memory.
class Tensor {
 public:
  Tensor(const moe::Device& device, DType dtype, std::vector<std::int64_t> shape)
      : device_(&device), dtype_(dtype), shape_(std::move(shape)) {
    for (const std::int64_t extent : shape_) elements_ *= extent;
    memory_ = device.allocate(std::max<std::int64_t>(1, elements_ * size_of(dtype)));
  }
  Tensor& fill(const Values& values) {
    std::vector<std::byte> bytes(at(elements_ * size_of(dtype_)));
    for (std::int64_t i = 0; i < elements_; ++i) store_f64(bytes.data(), dtype_, i, values[at(i)]);
    write(memory_.get(), bytes.data(), static_cast<std::int64_t>(bytes.size()));
    return *this;
  }
  Values values() const {
    std::vector<std::byte> bytes(at(elements_ * size_of(dtype_)));
    device_->read(bytes.data(), memory_.get(), static_cast<std::int64_t>(bytes.size()), nullptr);
    Values out;
    for (std::int64_t i = 0; i < elements_; ++i) out.push_back(load_f64(bytes.data(), dtype_, i));
    return out;
  }
  TensorView view() const {
    TensorView v;
    v.data = memory_.get();
    v.dtype = dtype_;
    v.rank = static_cast<int>(shape_.size());
    std::int64_t stride = 1;
    for (std::size_t i = shape_.size(); i-- > 0; stride *= shape_[i]) {
      v.shape[i] = shape_[i];
      v.strides[i] = stride;
    }
    return v;
  }

 private:
  const moe::Device* device_;
  DType dtype_;
  std::vector<std::int64_t> shape_;
  std::int64_t elements_ = 1;
  std::shared_ptr<void> memory_;
};

/// Weights of experts, or their gradients.
struct Set {
  Set(const moe::Device& device, DType dtype, std::int64_t experts, std::int64_t ffn,
      std::int64_t hidden)
      : gate(device, dtype, {experts, ffn, hidden}),
        up(device, dtype, {experts, ffn, hidden}),
        down(device, dtype, {experts, hidden, ffn}) {}
  void fill(const OracleExperts& from, bool gated) {
    if (gated) gate.fill(from.gate);
    up.fill(from.up);
    down.fill(from.down);
  }
  OracleExperts values(bool gated) const {
    return {gated ? gate.values() : Values{}, up.values(), down.values()};
  }
  moe::ExpertWeights weights() const { return {gate.view(), up.view(), down.view()}; }
  moe::ExpertGradients gradients() const { return {gate.view(), up.view(), down.view()}; }
  Tensor gate, up, down;
};

LayerResult run(const LayerCase& layer, const moe::Device& device, std::int64_t more_tokens) {
  const LayerConfig& c = layer.config;
  const bool gated = c.activation == Activation::swiglu;
  DeviceLayer on(c, layer.tokens + more_tokens, device);
  Tensor x(device, c.dtype, {layer.tokens, c.hidden}), y = x, dy = x, dx = x;
  for (Tensor* t : {&y, &dy, &dx}) *t = Tensor(device, c.dtype, {layer.tokens, c.hidden});
  x.fill(layer.x);
  dy.fill(layer.dy);
  Set experts(device, c.dtype, c.experts, c.ffn, c.hidden);
  Set shared(device, c.dtype, 1, c.shared_ffn, c.hidden);
  experts.fill(layer.experts, gated);
  if (c.shared_ffn > 0) shared.fill(layer.shared, gated);
  Tensor router(device, c.dtype, {c.experts, c.hidden});
  router.fill(layer.router);
  Tensor bias(device, DType::f32, {static_cast<std::int64_t>(layer.bias.size())});
  bias.fill({layer.bias.begin(), layer.bias.end()});
  Set dexperts(device, DType::f32, c.experts, c.ffn, c.hidden);
  Set dshared(device, DType::f32, 1, c.shared_ffn, c.hidden);
  Tensor drouter(device, DType::f32, {c.experts, c.hidden});
  const moe::LayerWeights weights{
      .experts = experts.weights(),
      .shared = shared.weights(),
      .router = router.view(),
      .bias = {static_cast<const float*>(bias.view().data), layer.bias.size()}};
  const moe::LayerGradients gradients{.experts = dexperts.gradients(),
                                      .shared = dshared.gradients(),
                                      .router = drouter.view(),
                                      .assign = true};
  for (int call = 0; call < 2; ++call) {  // the second finds what the first left
    on.forward(x.view(), weights, y.view());
    on.backward(dy.view(), x.view(), weights, dx.view(), gradients);
  }
  Values dweights(at(layer.tokens * c.k));
  std::vector<float> back(dweights.size());
  device.read(back.data(), on.dweights(), layer.tokens * c.k * 4, nullptr);
  std::ranges::copy(back, dweights.begin());
  return {y.values(),
          dx.values(),
          dexperts.values(gated),
          c.shared_ffn > 0 ? dshared.values(gated) : OracleExperts{},
          drouter.values(),
          dweights};
}

struct Shape {
  DType dtype;
  Activation activation;
  std::int64_t hidden, ffn, shared_ffn, tokens;
  RouterConfig router;
};

TEST(MoeKernelsLayer, EqualsFloat64ForwardAndBackward) {
  const moe::Device device = test_device();
  std::uint64_t seed = 40;
  for (const Shape& s :
       {Shape{DType::f32, Activation::swiglu, 7, 5, 3, 13, RouterConfig::mixtral(6, 2)},
        Shape{DType::bf16, Activation::swiglu, 48, 32, 16, 33, RouterConfig::deepseek_v3(32, 4)},
        Shape{DType::bf16, Activation::gelu, 24, 16, 0, 9, RouterConfig::qwen3(40, 3, false)},
        Shape{DType::f32, Activation::swiglu, 16, 8, 0, 1, RouterConfig::switch_transformer(5)},
        Shape{DType::f32, Activation::gelu, 8, 4, 4, 70, RouterConfig::qwen3(12, 4)}}) {
    LayerConfig c;
    c.hidden = s.hidden;
    c.ffn = s.ffn;
    c.activation = s.activation;
    c.dtype = s.dtype;
    c.experts = s.router.experts;
    c.k = s.router.k;
    c.shared_ffn = s.shared_ffn;
    c.router = s.router;
    const LayerCase layer = random_layer(++seed, c, s.tokens);
    SCOPED_TRACE(layer.describe());
    double gap = 1e300;
    const moe::Routing routing = oracle_routing(layer, &gap);
    ASSERT_GT(gap, 2e-5) << "take another seed: sums in another order must decide alike";
    expect_near(layer, run(layer, device, 5), oracle_layer(layer, routing));
  }
}

TEST(MoeKernelsLayer, WithoutTokensGradientsAreZero) {
  const moe::Device device = test_device();
  LayerConfig c;
  c.hidden = 8;
  c.ffn = 4;
  c.shared_ffn = 4;
  c.experts = 3;
  c.k = 2;
  c.router = RouterConfig::mixtral(3, 2);
  const LayerResult got = run(random_layer(60, c, 0), device, 2);
  for (const Values* v : {&got.experts.gate, &got.experts.up, &got.experts.down, &got.shared.up,
                          &got.shared.down, &got.router}) {
    EXPECT_EQ(*v, Values(v->size(), 0.0));
  }
}

TEST(MoeKernelsLayer, RefusesWhatIsNotBuilt) {
  const moe::Device device = test_device();
  LayerConfig c;
  c.hidden = c.ffn = 4;
  c.experts = 4;
  c.k = 2;
  EXPECT_THROW(DeviceLayer(c, 4, device), Unsupported);
  c.router = RouterConfig::mixtral(4, 2);
  c.balance_alpha = 0.1;
  EXPECT_THROW(DeviceLayer(c, 4, device), Unsupported);
}

}  // namespace
}  // namespace annulus::testing
