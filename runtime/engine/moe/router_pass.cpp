#include "runtime/base/dtype.h"
#include "runtime/engine/moe/host_layer.h"

#include <algorithm>
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

RouterInput input_of(const Step::Impl& step, const LayerWeights& weights, std::int64_t experts) {
  const auto logits = static_cast<std::size_t>(step.selected.tokens * experts);
  return {.logits = std::span(step.logits).first(logits), .bias = weights.bias};
}

std::span<const std::int32_t> set_numbers(const LayerConfig& c, const Step::Impl& step) {
  if (c.balance_alpha == 0.0 || c.balance_over != BalanceOver::sequences) return {};
  return step.facts.sequence_of;
}

}  // namespace

ConstTensorView HostLayer::router_input(const ConstTensorView& x, const TokenFacts& facts) {
  const LayerConfig& c = shape.config;
  if (c.jitter == 0.0) return x;
  for (std::int64_t t = 0; t < x.shape[0]; ++t) {
    for (std::int64_t i = 0; i < c.hidden; ++i) {
      noisy_row_[static_cast<std::size_t>(i)] =
          static_cast<float>(load_f64(x.data, c.dtype, t * x.strides[0] + i));
    }
    jitter(noisy_row_, c.hidden, static_cast<float>(c.jitter), facts.noise_seed,
           facts.first_token + t);
    for (std::int64_t i = 0; i < c.hidden; ++i) {
      store_f32(noisy_x_.data(), c.dtype, t * c.hidden + i,
                noisy_row_[static_cast<std::size_t>(i)]);
    }
  }
  return {noisy_x_.data(), c.dtype, {x.shape[0], c.hidden}};
}

void HostLayer::route(const ForwardCall& call, Step::Impl& step) {
  const LayerConfig& c = shape.config;
  step.status = {};
  step.balance_loss = step.z_loss = 0.0;
  step.routed = call.given == nullptr;
  if (call.given != nullptr) {
    step.selected = *call.given;
  } else {
    const std::int64_t tokens = call.x.shape[0];
    step.selected.tokens = tokens;
    const Product logits{.m = tokens,
                         .n = c.experts,
                         .k = c.hidden,
                         .a = matrix(router_input(call.x, step.facts)),
                         .b = turned(matrix(call.weights.router)),
                         .c = {step.logits.data(), DType::f32, c.experts}};
    kernel->multiply({&logits, 1}, context());
    const RouterInput input = input_of(step, call.weights, c.experts);
    router->forward(input, step.selected, step.status);
    if (has_losses(c)) {
      const auto sets = set_numbers(c, step);
      count_scope(*c.router, input, sets_of(c), sets, step.scope, loss_room_);
      step.scope_tokens = sum_scope(
          c.balance_over, [this](std::span<std::int64_t> words) { sum_over_ranks(words); },
          step.scope, scope_words_);
      step.balance_loss =
          balance_loss(*c.router, input, step.scope, c.balance_alpha, {}, sets, &loss_room_);
      step.z_loss = z_loss(*c.router, input, step.scope_tokens, c.z_beta, {}, &loss_room_);
    }
  }
  step.load.dropped = apply_capacity(c.capacity, step.selected, step.kept, &capacity_room_);
}

/// From sent order to [tokens, k].
void HostLayer::take_dweights(const Step::Impl& step, std::span<float> out) const {
  const float* back = exchange.returned_scalars();
  for (std::size_t pair = 0; pair < step.plan.sent_at.size(); ++pair) {
    const std::int64_t place = step.plan.sent_at[pair];
    out[pair] = place < 0 ? 0.0F : back[place];
  }
}

void HostLayer::route_backward(const BackwardCall& call, Step::Impl& step) {
  const LayerConfig& c = shape.config;
  const std::int64_t tokens = step.selected.tokens;
  const auto dweights = std::span(dweights_).first(step.plan.sent_at.size());
  const auto dlogits = std::span(dlogits_).first(static_cast<std::size_t>(tokens * c.experts));
  const RouterInput input = input_of(step, call.weights, c.experts);
  take_dweights(step, dweights);
  router->backward(input, step.selected, step.kept, dweights, dlogits);
  if (c.balance_alpha != 0.0) {
    balance_loss(*c.router, input, step.scope, c.balance_alpha, dlogits, set_numbers(c, step),
                 &loss_room_);
  }
  if (c.z_beta != 0.0) z_loss(*c.router, input, step.scope_tokens, c.z_beta, dlogits, &loss_room_);
  const Operand dz{.data = dlogits.data(), .dtype = DType::f32, .row_stride = c.experts};
  const TensorView& gradient = call.gradients.router;
  const bool noisy = c.jitter != 0.0;
  auto* sum = reinterpret_cast<float*>(more.data());
  const std::array<Product, 2> products{
      Product{.m = c.experts,
              .n = c.hidden,
              .k = tokens,
              .a = turned(dz),
              .b = matrix(router_input(call.x, step.facts)),
              .c = {gradient.data, DType::f32, gradient.strides[0]},
              .add = !call.gradients.assign},
      Product{.m = tokens,
              .n = c.hidden,
              .k = c.experts,
              .a = dz,
              .b = matrix(call.weights.router),
              .c = {noisy ? noisy_dx_.data() : sum, DType::f32, c.hidden},
              .add = !noisy && c.shared_ffn > 0}};
  kernel->multiply(products, context());
  if (!noisy) return;
  const auto elements = static_cast<std::size_t>(tokens * c.hidden);
  const auto dx = std::span(noisy_dx_).first(elements);
  jitter(dx, c.hidden, static_cast<float>(c.jitter), step.facts.noise_seed, step.facts.first_token);
  for (std::size_t i = 0; i < elements; ++i) sum[i] = c.shared_ffn > 0 ? sum[i] + dx[i] : dx[i];
}

}  // namespace annulus::moe
