#include "moe/device_layer.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace annulus::moe {

/// Counts of this rank come to the host, those of all go back to the device: places need them.
void DeviceLayer::place(DeviceStep& step) {
  void* stream = device_.context.stream;
  const std::int64_t experts = config_.experts;
  const auto width = static_cast<std::size_t>(experts + kBesideCounts);
  place_.tokens = static_cast<std::int32_t>(step.tokens);
  place_.indices = step.indices;
  place_.rank = step.rank;
  place_.row = step.row;
  device_.count_pairs(place_, stream);
  mine_.resize(width + static_cast<std::size_t>(loss_words()));
  device_.read(mine_.data(), place_.counts, std::ssize(mine_) * 8, stream);
  const auto mine = std::span(mine_).first(width);
  step.bad_tokens = mine[width - 2];
  step.dropped = mine[width - 1];
  if (peers_ == nullptr) {
    step.counts.assign(mine.begin(), mine.end());
  } else {
    peers_->gather("counts", mine, step.counts);
    for (std::int64_t r = 0; r < ranks_; ++r) {
      device_.write(matrix_ + r * experts, step.counts.data() + r * std::ssize(mine), experts * 8,
                    stream);
    }
  }
  device_.place_pairs(place_, stream);
  lay_out(step);
  if (step.routed && has_losses(config_)) sum_losses(std::span(mine_).subspan(width), step);
}

void DeviceLayer::lay_out(DeviceStep& step) const {
  const std::int64_t local = config_.experts / ranks_;
  std::int64_t first = 0;
  step.expert_rows.clear();
  for (std::int64_t e = 0; e < local; ++e) {
    std::int64_t rows = 0;
    for (std::int64_t r = 0; r < ranks_; ++r) {
      rows += step.counts[static_cast<std::size_t>(r * (config_.experts + kBesideCounts) +
                                                   me_ * local + e)];
    }
    step.expert_rows.push_back({.expert = e, .first = first, .rows = rows});
    first += rows;
  }
  if (first <= capacity_) return;
  throw CommError(
      fmt::format("MoE layer on a GPU: {} rows come to rank {} of the group, at most "
                  "{} can: a rank brought more than {} tokens",
                  first, me_, capacity_, max_tokens_));
}

void DeviceLayer::send(const ConstTensorView& from, std::int64_t part, bool weights,
                       const DeviceStep& step) {
  const std::int64_t element = size_of(config_.dtype);
  cuda::ScatterParams p;
  p.tokens = step.tokens;
  p.k = place_.k;
  p.bytes = config_.hidden * element;
  p.from = static_cast<const std::byte*>(from.data);
  p.from_stride = from.strides[0] * element;
  p.rank = step.rank;
  p.place = step.row;
  p.weights = weights ? step.weights : nullptr;
  for (std::int64_t r = 0; r < ranks_; ++r) {
    p.to[r] = region(r) + part;
    p.weights_to[r] = reinterpret_cast<float*>(region(r) + region_.weights);
  }
  device_.scatter(p, 0, device_.context.stream);
}

/// What every rank enqueued before is over when this returns. Nobody waits for another rank on the
/// device, so that a rank that is gone leaves no kernel behind that waits.
void DeviceLayer::meet(const char* phase) {
  if (peers_ == nullptr) return;
  device_.wait(device_.context.stream);
  peers_->meet(phase);
}

void DeviceLayer::combine(const TensorView& out, bool more, const DeviceStep& step) {
  cuda::CombineParams p{.sum = {.dtype = config_.dtype,
                                .tokens = step.tokens,
                                .k = config_.k,
                                .width = config_.hidden,
                                .at = step.row,
                                .rows = nullptr,
                                .more = more ? more_ : nullptr,
                                .out = out.data,
                                .out_stride = out.strides[0]},
                        .rank = step.rank};
  for (std::int64_t r = 0; r < ranks_; ++r) p.rows[r] = region(r) + region_.y_rows;
  device_.combine(p, 0, device_.context.stream);
}

void DeviceLayer::pull(float* to, const DeviceStep& step) {
  cuda::PullParams p{
      .pairs = step.tokens * config_.k, .rank = step.rank, .place = step.row, .from = {}, .to = to};
  for (std::int64_t r = 0; r < ranks_; ++r) {
    p.from[r] = reinterpret_cast<const float*>(region(r) + region_.dweights);
  }
  device_.pull(p, device_.context.stream);
}

void DeviceLayer::choose(const ConstTensorView& x, const LayerWeights& weights,
                         const Routing* given, DeviceStep& step) {
  step.routed = given == nullptr;
  device_.clear(place_.counts + config_.experts, (kBesideCounts + loss_words()) * 8,
                device_.context.stream);
  if (step.routed) {
    route(x, weights, step);
    count_losses(step);
  } else {
    const std::int64_t bytes = step.tokens * config_.k * 4;
    device_.write(step.selected, given->indices.data(), bytes, device_.context.stream);
    device_.write(step.selected_weights, given->weights.data(), bytes, device_.context.stream);
  }
  drop(step);
}

void DeviceLayer::forward(const ConstTensorView& x, const LayerWeights& weights,
                          const TensorView& y, DeviceStep& step, const Routing* given) {
  if (x.shape[0] > max_tokens_ || (given == nullptr && !config_.router)) {
    throw InvalidArgument(fmt::format(
        "MoE layer on a GPU: {} tokens {}, made for {}", x.shape[0],
        given == nullptr && !config_.router ? "without a routing" : "came", max_tokens_));
  }
  step.tokens = x.shape[0];
  step.call = held_ = ++calls_;
  choose(x, weights, given, step);
  place(step);
  send(x, region_.rows, true, step);
  meet("dispatch");
  const ExpertRows all{.expert = 0, .first = 0, .rows = step.tokens};
  const bool shares = config_.shared_ffn > 0;
  experts_.forward(weights.experts, step.expert_rows, row_buffers(), device_.context);
  if (shares) shared_.forward(weights.shared, {&all, 1}, shared_buffers(x), device_.context);
  meet("results");
  combine(y, shares, step);
}

void DeviceLayer::backward(const ConstTensorView& dy, const ConstTensorView& x,
                           const LayerWeights& weights, const TensorView& dx,
                           const LayerGradients& gradients, DeviceStep& step, float* dweights) {
  const bool again = held_ != step.call;
  const ExpertRows all{.expert = 0, .first = 0, .rows = step.tokens};
  const bool shares = config_.shared_ffn > 0;
  held_ = 0;  // `between` becomes its gradient
  if (again) send(x, region_.rows, true, step);
  send(dy, region_.dy_rows, false, step);
  meet("dispatch of gradients");
  if (again) {
    experts_.first_half(weights.experts, step.expert_rows, row_buffers(), device_.context);
    if (shares) shared_.first_half(weights.shared, {&all, 1}, shared_buffers(x), device_.context);
  }
  experts_.backward(weights.experts, gradients.experts, gradients.assign, step.expert_rows,
                    row_buffers(),
                    {.dy = own(region_.dy_rows),
                     .dactivated = dactivated_,
                     .dx = own(region_.y_rows),
                     .dx_dtype = config_.dtype,
                     .dweights = own_values(region_.dweights)},
                    device_.context);
  if (shares) {
    shared_.backward(weights.shared, gradients.shared, gradients.assign, {&all, 1},
                     shared_buffers(x),
                     {.dy = dy.data,
                      .dy_stride = dy.strides[0],
                      .dactivated = shared_dactivated_,
                      .dx = more_,
                      .dx_dtype = DType::f32},
                     device_.context);
  }
  meet("gradients of rows");
  if (dweights == nullptr) dweights = dweights_;
  pull(dweights, step);
  if (step.routed) route_backward(x, weights, gradients, step, dweights);
  combine(dx, shares || step.routed, step);
}

}  // namespace annulus::moe
