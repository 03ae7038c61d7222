// A whole layer on one GPU. The proxies of issue G have as many rows and as much work a GPU as
// here, where no row travels: what dispatch and combine over links will add is not in these times.
#include "moe/device_layer.h"
#include "runtime/base/cuda_handles.h"
#include "tests/gpu/moe_times.h"

#include <string>
#include <vector>

namespace annulus::testing {

namespace {

struct Shape {
  const char* name;
  std::int64_t hidden, ffn, experts, k;
  const char* forward;   ///< predicted
  const char* backward;  ///< predicted
};

/// Values of the layer; a matrix [experts][rows][columns].
struct Matrix {
  Matrix(std::int64_t e, std::int64_t r, std::int64_t c)
      : values(random_bf16(e * r * c)), sums(e * r * c * 4), shape{e, r, c} {}
  TensorView weights() const {
    return {values.data(), DType::bf16, {shape[0], shape[1], shape[2]}};
  }
  TensorView gradients() const { return {sums.data(), DType::f32, {shape[0], shape[1], shape[2]}}; }
  DeviceBuffer values, sums;
  std::int64_t shape[3];
};

void time_shape(const Shape& s, cudaStream_t stream) {
  moe::LayerConfig config;
  config.hidden = s.hidden;
  config.ffn = s.ffn;
  config.dtype = DType::bf16;
  config.experts = s.experts;
  config.k = s.k;
  config.router = moe::RouterConfig::mixtral(s.experts, s.k);
  moe::DeviceLayer layer(config, {.max_tokens = kTokens}, moe::gpu_device(stream));
  const Matrix gate(s.experts, s.ffn, s.hidden), up(s.experts, s.ffn, s.hidden),
      down(s.experts, s.hidden, s.ffn);
  const DeviceBuffer x = random_bf16(kTokens * s.hidden), dy = random_bf16(kTokens * s.hidden),
                     router = random_bf16(s.experts * s.hidden);
  const DeviceBuffer y(x.bytes()), dx(x.bytes()), drouter(2 * router.bytes());
  const auto tokens = [&](const DeviceBuffer& b) {
    return TensorView(b.data(), DType::bf16, {kTokens, s.hidden});
  };
  const moe::LayerWeights weights{
      .experts = {gate.weights(), up.weights(), down.weights()},
      .router = TensorView(router.data(), DType::bf16, {s.experts, s.hidden})};
  const moe::LayerGradients gradients{
      .experts = {gate.gradients(), up.gradients(), down.gradients()},
      .router = TensorView(drouter.data(), DType::f32, {s.experts, s.hidden}),
      .assign = true};
  moe::DeviceStep step = layer.make_step();
  const auto run_forward = [&] { layer.forward(tokens(x), weights, tokens(y), step); };
  const double forward = microseconds(stream, 1, run_forward);
  const double both = microseconds(stream, 1, [&] {
    run_forward();
    layer.backward(tokens(dy), tokens(x), weights, tokens(dx), gradients, step);
  });
  const double backward = both - forward;
  const double flops = 6.0 * static_cast<double>(kTokens * s.k * s.hidden * s.ffn);
  const std::string name = s.name;
  print_time((name + " forward").c_str(), forward, flops * 1e-6 / forward, "TFLOP/s", s.forward);
  print_time((name + " backward").c_str(), backward, 2 * flops * 1e-6 / backward, "TFLOP/s",
             s.backward);
}

}  // namespace

void time_layer() {
  const CudaStream own = make_stream();
  for (const Shape& s :
       {Shape{"layer 8 experts k 8, H 7168 F 2048", 7168, 2048, 8, 8, "4.5 ms", "9.4 ms"},
        Shape{"layer 32 experts k 8, H 7168 F 2048", 7168, 2048, 32, 8, "4.7 ms", "10.5 ms"},
        Shape{"layer Mixtral, H 4096 F 14336", 4096, 14336, 8, 2, "4.2 ms", "8.7 ms"}}) {
    time_shape(s, own.get());
  }
}

}  // namespace annulus::testing
