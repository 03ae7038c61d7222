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
  const auto width = static_cast<std::size_t>(counts_width());
  place_.tokens = static_cast<std::int32_t>(step.tokens);
  place_.indices = step.indices;
  place_.rank = step.rank;
  place_.row = step.row;
  place_.unique_of = step.unique_of;
  device_.count_pairs(place_, stream);
  mine_.resize(width + static_cast<std::size_t>(loss_words()));
  device_.read(mine_.data(), place_.counts, std::ssize(mine_) * 8, stream);
  const auto mine = std::span(mine_).first(width);
  step.bad_tokens = mine[static_cast<std::size_t>(experts)];
  step.dropped = mine[static_cast<std::size_t>(experts + 1)];
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
  if (in_messages()) place_messages(step);
  if (step.routed && has_losses(config_)) sum_losses(std::span(mine_).subspan(width), step);
}

void DeviceLayer::lay_out(DeviceStep& step) const {
  const std::int64_t local = config_.experts / ranks_;
  std::int64_t most = 0;
  step.expert_rows.clear();
  for (std::int64_t rank = 0; rank < ranks_; ++rank) {
    std::int64_t first = 0;
    for (std::int64_t e = 0; e < local; ++e) {
      std::int64_t rows = 0;
      for (std::int64_t source = 0; source < ranks_; ++source) {
        rows += step.counts[static_cast<std::size_t>(source * counts_width() + rank * local + e)];
      }
      if (rank == me_) step.expert_rows.push_back({.expert = e, .first = first, .rows = rows});
      first += rows;
    }
    most = std::max(most, first);
  }
  step.rounds = std::max<std::int64_t>(1, (most + capacity_ - 1) / capacity_);
  step.sent_tokens = rows_.once_a_rank && ranks_ > 1 && step.rounds == 1;
  if (step.rounds == 1 || rows_.capacity > 0) return;
  throw CommError(
      fmt::format("MoE layer on a GPU: {} rows come to a rank of the group, at most {} can: a rank "
                  "brought more than {} tokens",
                  most, capacity_, max_tokens_));
}

void DeviceLayer::choose(const ConstTensorView& x, const LayerWeights& weights,
                         const Routing* given, DeviceStep& step) {
  step.routed = given == nullptr;
  device_.clear(place_.counts + config_.experts,
                (counts_width() - config_.experts + loss_words()) * 8, device_.context.stream);
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

void DeviceLayer::shared_forward(const ConstTensorView& x, const LayerWeights& weights,
                                 const DeviceStep& step) {
  if (config_.shared_ffn == 0) return;
  const ExpertRows all{.expert = 0, .first = 0, .rows = step.tokens};
  shared_.forward(weights.shared, {&all, 1}, shared_buffers(x), device_.context);
}

void DeviceLayer::shared_backward(const ConstTensorView& dy, const ConstTensorView& x,
                                  const LayerWeights& weights, const LayerGradients& gradients,
                                  const DeviceStep& step, bool again) {
  if (config_.shared_ffn == 0) return;
  const ExpertRows all{.expert = 0, .first = 0, .rows = step.tokens};
  if (again) shared_.first_half(weights.shared, {&all, 1}, shared_buffers(x), device_.context);
  shared_.backward(weights.shared, gradients.shared, gradients.assign, {&all, 1}, shared_buffers(x),
                   {.dy = dy.data,
                    .dy_stride = dy.strides[0],
                    .dactivated = shared_dactivated_,
                    .dx = more_,
                    .dx_dtype = DType::f32},
                   device_.context);
}

void DeviceLayer::forward_round(const ConstTensorView& x, const LayerWeights& weights,
                                const DeviceStep& step, std::int64_t round) {
  void* travel = begin_travel(round == 0);
  send(x, region_.rows, true, step, round, travel);
  if (round == 0) shared_forward(x, weights, step);
  arrive("dispatch", region_.rows, true, step, round, travel);
  experts_.forward(weights.experts, expert_rows(step, round), row_buffers(), device_.context);
  if (in_messages()) return return_rows("results", false, step, round);
  meet("results", device_.context.stream);
  finish_round(step, round, nullptr);
}

void DeviceLayer::forward(const ConstTensorView& x, const LayerWeights& weights,
                          const TensorView& y, DeviceStep& step, const Routing* given) {
  if (x.shape[0] > max_tokens_ || (given == nullptr && !config_.router)) {
    throw InvalidArgument(fmt::format(
        "MoE layer on a GPU: {} tokens {}, made for {}", x.shape[0],
        given == nullptr && !config_.router ? "without a routing" : "came", max_tokens_));
  }
  step.tokens = x.shape[0];
  hold(step);
  choose(x, weights, given, step);
  place(step);
  held_rows_ = step.expert_rows.back().first + step.expert_rows.back().rows;
  for (std::int64_t round = 0; round < step.rounds; ++round) {
    forward_round(x, weights, step, round);
  }
  if (step.rounds > 1) held_ = 0;  // the last round alone lies here
  combine(y, config_.shared_ffn > 0, step);
}

void DeviceLayer::backward_round(const ConstTensorView& dy, const ConstTensorView& x,
                                 const LayerWeights& weights, const LayerGradients& gradients,
                                 const DeviceStep& step, std::int64_t round, float* dweights) {
  const bool here = rows_of(step) == Rows::here, again = rows_of(step) == Rows::gone;
  const RowBuffers buffers = buffers_of(step);
  void* travel = begin_travel(round == 0);
  if (again) send_again(x, step, round, travel);
  send(dy, region_.dy_rows, false, step, round, travel);
  if (round == 0) shared_backward(dy, x, weights, gradients, step, !here);
  arrive("dispatch of gradients", region_.dy_rows, false, step, round, travel);
  const auto rows = expert_rows(step, round);
  if (again || (!here && step.kept->between == nullptr)) {
    experts_.first_half(weights.experts, rows, buffers, device_.context);
  }
  experts_.backward(weights.experts, gradients.experts, gradients.assign && round == 0, rows,
                    buffers,
                    {.dy = own(region_.dy_rows),
                     .dactivated = dactivated_,
                     .dx = own(region_.y_rows),
                     .dx_dtype = config_.dtype,
                     .dweights = own_values(region_.dweights)},
                    device_.context);
  if (in_messages()) return return_rows("gradients of rows", true, step, round);
  meet("gradients of rows", device_.context.stream);
  finish_round(step, round, dweights);
}

void DeviceLayer::backward(const ConstTensorView& dy, const ConstTensorView& x,
                           const LayerWeights& weights, const TensorView& dx,
                           const LayerGradients& gradients, DeviceStep& step, float* dweights) {
  if (dweights == nullptr) dweights = dweights_;
  make_way(step);
  for (std::int64_t round = 0; round < step.rounds; ++round) {
    backward_round(dy, x, weights, gradients, step, round, dweights);
  }
  held_ = 0;  // `between` became its gradient
  if (in_messages()) take_values(step, dweights);
  if (step.routed) route_backward(x, weights, gradients, step, dweights);
  combine(dx, config_.shared_ffn > 0 || step.routed, step);
}

}  // namespace annulus::moe
