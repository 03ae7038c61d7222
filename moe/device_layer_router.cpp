// The router of a layer on a GPU, and its gradients. d(logits) are f32: where the layer is not,
// they enter products as a sum of two numbers of its dtype.
#include "moe/device_layer.h"

#include <array>

namespace annulus::moe {
namespace {

Operand matrix(const ConstTensorView& view) {
  return {
      .data = view.data, .dtype = view.dtype, .row_stride = view.strides[0], .column_stride = 1};
}

Operand turned(const Operand& o) {
  return {.data = o.data,
          .dtype = o.dtype,
          .row_stride = o.column_stride,
          .column_stride = o.row_stride};
}

}  // namespace

void DeviceLayer::route(const ConstTensorView& x, const LayerWeights& weights, DeviceStep& step) {
  const Product logits{.m = step.tokens,
                       .n = config_.experts,
                       .k = config_.hidden,
                       .a = matrix(router_input(x, step)),
                       .b = turned(matrix(weights.router)),
                       .c = {step.logits, DType::f32, config_.experts}};
  device_.kernel->multiply({&logits, 1}, device_.context);
  route_.tokens = step.tokens;
  route_.logits = step.logits;
  route_.indices = step.selected;
  route_.weights = step.selected_weights;
  route_.bias = weights.bias.empty() ? nullptr : weights.bias.data();
  device_.route(route_, device_.context.stream);
}

void DeviceLayer::route_backward(const ConstTensorView& x, const LayerWeights& weights,
                                 const LayerGradients& gradients, const DeviceStep& step,
                                 const float* dweights) {
  const std::int64_t experts = config_.experts, tokens = step.tokens;
  cuda::RouteParams forward = route_;
  forward.tokens = tokens;
  forward.logits = step.logits;
  forward.indices = step.selected;
  forward.weights = step.selected_weights;
  forward.bias = weights.bias.empty() ? nullptr : weights.bias.data();
  const bool drops = step.indices != step.selected;
  device_.route_backward({.forward = forward,
                          .kept = drops ? step.indices : nullptr,
                          .dweights = dweights,
                          .dlogits = dlogits_},
                         device_.context.stream);
  if (has_losses(config_)) {
    cuda::LossParams losses = loss_params(step);
    losses.dlogits = dlogits_;
    device_.add_losses(losses, device_.context.stream);
  }
  Operand dz{.data = dlogits_, .dtype = DType::f32, .row_stride = experts};
  Operand rest = dz;
  const bool split = config_.dtype != DType::f32;
  if (split) {
    device_.split({tokens * experts, config_.dtype, dlogits_, dlogits_high_, dlogits_low_},
                  device_.context.stream);
    dz.dtype = rest.dtype = config_.dtype;
    dz.data = dlogits_high_;
    rest.data = dlogits_low_;
  }
  const TensorView& dr = gradients.router;
  const ConstTensorView seen = router_input(x, step);
  const bool noisy = config_.jitter != 0.0;
  const std::array<Product, 2> products{
      Product{.m = experts,
              .n = config_.hidden,
              .k = tokens,
              .a = turned(dz),
              .b = matrix(seen),
              .c = {dr.data, DType::f32, dr.strides[0]},
              .add = !gradients.assign,
              .k_more = split ? tokens : 0,
              .a_more = turned(rest),
              .b_more = matrix(seen)},
      Product{.m = tokens,
              .n = config_.hidden,
              .k = experts,
              .a = dz,
              .b = matrix(weights.router),
              .c = {noisy ? noisy_dx_ : more_, DType::f32, config_.hidden},
              .add = !noisy && config_.shared_ffn > 0,
              .k_more = split ? experts : 0,
              .a_more = rest,
              .b_more = matrix(weights.router)}};
  device_.kernel->multiply(products, device_.context);
  if (noisy) add_noise(step);
}

}  // namespace annulus::moe
