#include "comm/mesh.h"
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

}  // namespace

/// Sums the scope over all ranks, so that each has its part of the loss of the whole batch.
void HostLayer::gather_scope(LossScope& scope) {
  comm::Communicator& communicator = *mesh->impl().communicator;
  const std::size_t width = scope.selections.size() + 1;
  scope_row_.assign(scope.selections.begin(), scope.selections.end());
  scope_row_.push_back(scope.tokens[0]);
  scope_rows_.resize(width * static_cast<std::size_t>(communicator.size()));
  communicator.all_gather(std::as_bytes(std::span(scope_row_)),
                          std::as_writable_bytes(std::span(scope_rows_)), "moe loss counts");
  std::ranges::fill(scope.selections, 0);
  scope.tokens[0] = 0;
  for (std::size_t i = 0; i < scope_rows_.size(); ++i) {
    const std::size_t column = i % width;
    (column + 1 == width ? scope.tokens[0] : scope.selections[column]) += scope_rows_[i];
  }
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
                         .a = matrix(call.x),
                         .b = turned(matrix(call.weights.router)),
                         .c = {step.logits.data(), DType::f32, c.experts}};
    kernel->multiply({&logits, 1}, context());
    const RouterInput input = input_of(step, call.weights, c.experts);
    router->forward(input, step.selected, step.status);
    if (c.balance_alpha != 0.0 || c.z_beta != 0.0) {
      count_scope(*c.router, input, 1, {}, step.scope, loss_room_);
      gather_scope(step.scope);
      step.balance_loss =
          balance_loss(*c.router, input, step.scope, c.balance_alpha, {}, {}, &loss_room_);
      step.z_loss = z_loss(*c.router, input, step.scope.tokens[0], c.z_beta, {}, &loss_room_);
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
    balance_loss(*c.router, input, step.scope, c.balance_alpha, dlogits, {}, &loss_room_);
  }
  if (c.z_beta != 0.0)
    z_loss(*c.router, input, step.scope.tokens[0], c.z_beta, dlogits, &loss_room_);
  const Operand dz{.data = dlogits.data(), .dtype = DType::f32, .row_stride = c.experts};
  const TensorView& gradient = call.gradients.router;
  const std::array<Product, 2> products{
      Product{.m = c.experts,
              .n = c.hidden,
              .k = tokens,
              .a = turned(dz),
              .b = matrix(call.x),
              .c = {gradient.data, DType::f32, gradient.strides[0]},
              .add = !call.gradients.assign},
      Product{.m = tokens,
              .n = c.hidden,
              .k = c.experts,
              .a = dz,
              .b = matrix(call.weights.router),
              .c = {more.data(), DType::f32, c.hidden},
              .add = c.shared_ffn > 0}};
  kernel->multiply(products, context());
}

}  // namespace annulus::moe
