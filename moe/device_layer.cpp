#include "moe/device_layer.h"

#include <annulus/error.h>

#include <fmt/format.h>

namespace annulus::moe {
namespace {

LayerConfig checked(const LayerConfig& c) {
  const auto refuse = [](const char* what) {
    throw Unsupported(fmt::format("MoE layer on one GPU: {} is not built", what));
  };
  if (!c.router) refuse("a routing of the caller");
  if (c.capacity.factor != 0.0) refuse("dropping by capacity");
  if (c.balance_alpha != 0.0 || c.z_beta != 0.0) refuse("a balancing loss or z-loss");
  check(*c.router);
  return c;
}

ExpertShape shape_of(const LayerConfig& c, std::int64_t ffn) {
  return {.activation = c.activation, .dtype = c.dtype, .hidden = c.hidden, .ffn = ffn};
}

}  // namespace

template <typename T>
T* DeviceLayer::take(std::int64_t count) {
  const auto bytes = count * static_cast<std::int64_t>(sizeof(T));
  memory_.push_back(device_.allocate(bytes > 0 ? bytes : 1));
  bytes_ += bytes;
  return static_cast<T*>(memory_.back().get());
}

DeviceLayer::DeviceLayer(const LayerConfig& config, std::int64_t max_tokens, const Device& device)
    : config_(checked(config)),
      max_tokens_(max_tokens),
      device_(device),
      experts_(*device.kernel, shape_of(config, config.ffn)),
      shared_(*device.kernel, shape_of(config, config.shared_ffn)) {
  take_routing();
  take_rows();
}

void DeviceLayer::take_routing() {
  const std::int64_t experts = config_.experts;
  const std::int64_t pairs = max_tokens_ * config_.k;
  logits_ = take<float>(max_tokens_ * experts);
  dlogits_ = take<float>(max_tokens_ * experts);
  dlogits_high_ = dlogits_low_ = nullptr;
  if (config_.dtype != DType::f32) {
    dlogits_high_ = take(max_tokens_ * experts * size_of(config_.dtype));
    dlogits_low_ = take(max_tokens_ * experts * size_of(config_.dtype));
  }
  dweights_ = take<float>(pairs);
  route_ = cuda::route_params(*config_.router);
  route_.logits = logits_;
  route_.indices = take<std::int32_t>(pairs);
  route_.weights = take<float>(pairs);
  route_.bad_tokens = nullptr;
  place_.tokens = static_cast<std::int32_t>(max_tokens_);
  place_.k = static_cast<std::int32_t>(config_.k);
  place_.experts = static_cast<std::int32_t>(experts);
  place_.indices = route_.indices;
  place_.room = take<std::int32_t>(cuda::place_room(place_));
  place_.counts = take<std::int64_t>(experts);
  place_.matrix = place_.counts;
  place_.rank = take<std::int32_t>(pairs);
  place_.row = take<std::int64_t>(pairs);
  place_.expert_first = take<std::int64_t>(2 * experts);
  place_.expert_rows = place_.expert_first + experts;
  place_.rank_rows = take<std::int64_t>(1);
  place_.unique_first = take<std::int64_t>(2);
  place_.unique_tokens = take<std::int64_t>(max_tokens_);
  place_.unique_of = take<std::int64_t>(pairs);
  layout_.resize(static_cast<std::size_t>(2 * experts));
}

void DeviceLayer::take_rows() {
  const std::int64_t rows = max_tokens_ * config_.k;
  const std::int64_t element = size_of(config_.dtype);
  const std::int64_t between = hidden_width(config_.activation, config_.ffn);
  const std::int64_t shared = config_.shared_ffn;
  row_weights_ = take<float>(rows);
  row_dweights_ = take<float>(rows);
  rows_ = take(rows * config_.hidden * element);
  y_rows_ = take(rows * config_.hidden * element);
  dy_rows_ = take(rows * config_.hidden * element);
  between_ = take(rows * between * element);
  activated_ = take(rows * config_.ffn * element);
  dactivated_ = take(rows * config_.ffn * element);
  shared_between_ = take(max_tokens_ * hidden_width(config_.activation, shared) * element);
  shared_activated_ = take(max_tokens_ * shared * element);
  shared_dactivated_ = take(max_tokens_ * shared * element);
  more_ = take<float>(max_tokens_ * config_.hidden);
}

void DeviceLayer::place() {
  place_.tokens = static_cast<std::int32_t>(tokens_);
  device_.count_pairs(place_, device_.context.stream);
  device_.place_pairs(place_, device_.context.stream);
}

void DeviceLayer::scatter(const ConstTensorView& from, std::byte* to, bool weights) {
  const std::int64_t element = size_of(config_.dtype);
  cuda::ScatterParams p;
  p.tokens = tokens_;
  p.k = place_.k;
  p.bytes = config_.hidden * element;
  p.from = static_cast<const std::byte*>(from.data);
  p.from_stride = from.strides[0] * element;
  p.place = place_.row;
  p.weights = weights ? route_.weights : nullptr;
  p.to[0] = to;
  p.weights_to[0] = row_weights_;
  device_.scatter(p, 0, device_.context.stream);
}

void DeviceLayer::combine(const TensorView& out, bool more) {
  device_.kernel->sum({.dtype = config_.dtype,
                       .tokens = tokens_,
                       .k = config_.k,
                       .width = config_.hidden,
                       .at = place_.row,
                       .rows = y_rows_,
                       .more = more ? more_ : nullptr,
                       .out = out.data,
                       .out_stride = out.strides[0]},
                      device_.context);
}

void DeviceLayer::read_expert_rows() {
  const std::int64_t experts = config_.experts;
  device_.read(layout_.data(), place_.expert_first, 2 * experts * 8, device_.context.stream);
  expert_rows_.clear();
  for (std::int64_t e = 0; e < experts; ++e) {
    const auto i = static_cast<std::size_t>(e);
    expert_rows_.push_back(
        {.expert = e, .first = layout_[i], .rows = layout_[i + static_cast<std::size_t>(experts)]});
  }
}

RowBuffers DeviceLayer::row_buffers() const {
  return {.x = rows_,
          .between = between_,
          .activated = activated_,
          .weights = row_weights_,
          .y = y_rows_,
          .y_dtype = config_.dtype};
}

RowBuffers DeviceLayer::shared_buffers(const ConstTensorView& x) const {
  return {.x = x.data,
          .x_stride = x.strides[0],
          .between = shared_between_,
          .activated = shared_activated_,
          .weights = nullptr,
          .y = more_,
          .y_dtype = DType::f32};
}

void DeviceLayer::forward(const ConstTensorView& x, const LayerWeights& weights,
                          const TensorView& y) {
  if (x.shape[0] > max_tokens_) {
    throw InvalidArgument(
        fmt::format("MoE layer on one GPU: {} tokens, made for {}", x.shape[0], max_tokens_));
  }
  tokens_ = x.shape[0];
  route(x, weights);
  place();
  scatter(x, rows_, true);
  const ExpertRows all = all_tokens();
  const bool shares = config_.shared_ffn > 0;
  if (shares) shared_.forward(weights.shared, {&all, 1}, shared_buffers(x), device_.context);
  read_expert_rows();
  experts_.forward(weights.experts, expert_rows_, row_buffers(), device_.context);
  combine(y, shares);
}

void DeviceLayer::backward(const ConstTensorView& dy, const ConstTensorView& x,
                           const LayerWeights& weights, const TensorView& dx,
                           const LayerGradients& gradients) {
  scatter(dy, dy_rows_, false);
  const ExpertRows all = all_tokens();
  if (config_.shared_ffn > 0) {
    shared_.backward(weights.shared, gradients.shared, gradients.assign, {&all, 1},
                     shared_buffers(x),
                     {.dy = dy.data,
                      .dy_stride = dy.strides[0],
                      .dactivated = shared_dactivated_,
                      .dx = more_,
                      .dx_dtype = DType::f32},
                     device_.context);
  }
  experts_.backward(weights.experts, gradients.experts, gradients.assign, expert_rows_,
                    row_buffers(),
                    {.dy = dy_rows_,
                     .dactivated = dactivated_,
                     .dx = y_rows_,
                     .dx_dtype = config_.dtype,
                     .dweights = row_dweights_},
                    device_.context);
  route_backward(x, weights, gradients);
  combine(dx, true);
}

}  // namespace annulus::moe
