// Losses, capacity, noise and bias of a layer on a GPU: what a router has beside its weights.
#include "moe/device_layer.h"

#include <algorithm>

namespace annulus::moe {

ConstTensorView DeviceLayer::router_input(const ConstTensorView& x, const DeviceStep& step) {
  if (config_.jitter == 0.0) return x;
  device_.jitter({.dtype = config_.dtype,
                  .tokens = x.shape[0],
                  .hidden = config_.hidden,
                  .amount = static_cast<float>(config_.jitter),
                  .seed = step.facts.noise_seed,
                  .first_token = step.facts.first_token,
                  .from = x.data,
                  .from_stride = x.strides[0],
                  .to = noisy_x_},
                 device_.context.stream);
  return {noisy_x_, config_.dtype, {x.shape[0], config_.hidden}};
}

/// d(noisy x) to d(x), beside what shared experts gave.
void DeviceLayer::add_noise(const DeviceStep& step) {
  device_.jitter({.dtype = DType::f32,
                  .tokens = step.tokens,
                  .hidden = config_.hidden,
                  .amount = static_cast<float>(config_.jitter),
                  .seed = step.facts.noise_seed,
                  .first_token = step.facts.first_token,
                  .from = noisy_dx_,
                  .from_stride = config_.hidden,
                  .to = more_,
                  .add = config_.shared_ffn > 0},
                 device_.context.stream);
}

cuda::LossParams DeviceLayer::loss_params(const DeviceStep& step) const {
  cuda::LossParams p{.route = route_, .sets = sets_of(config_)};
  p.route.tokens = step.tokens;
  p.route.logits = step.logits;
  p.set_of = step.set_of;
  p.counts = step.scope;
  const std::int64_t used = used_sets(step.loss_scope);
  if (used > 0) p.alpha = config_.balance_alpha / static_cast<double>(used);
  if (step.loss_tokens > 0) p.beta = config_.z_beta / static_cast<double>(step.loss_tokens);
  return p;
}

/// Into what follows the counts of pairs.
void DeviceLayer::count_losses(DeviceStep& step) {
  if (!has_losses(config_)) return;
  if (step.set_of != nullptr && config_.balance_alpha != 0.0) {
    device_.write(step.set_of, step.facts.sequence_of.data(), step.tokens * 4,
                  device_.context.stream);
  } else if (step.set_of != nullptr) {
    device_.clear(step.set_of, step.tokens * 4, device_.context.stream);  // no loss by sequences
  }
  cuda::LossParams p{.route = route_, .sets = sets_of(config_), .set_of = step.set_of};
  p.counts = place_.counts + counts_width();
  device_.count_losses(p, device_.context.stream);
}

/// `words`: of this rank. The losses are there when the stream has passed.
void DeviceLayer::sum_losses(std::span<const std::int64_t> words, DeviceStep& step) {
  const std::int64_t sets = sets_of(config_);
  const auto middle = words.begin() + sets * config_.experts;
  LossScope& scope = step.loss_scope;
  scope.sets = sets;
  scope.experts = config_.experts;
  scope.selections.assign(words.begin(), middle);
  scope.tokens.assign(middle, words.end());
  const auto sum = [this](std::span<std::int64_t> own) {
    if (sum_over_ranks_) sum_over_ranks_(own);
  };
  step.loss_tokens = sum_scope(config_.balance_over, sum, scope, words_);
  const std::int64_t selections = std::ssize(scope.selections);
  device_.write(step.scope, scope.selections.data(), selections * 8, device_.context.stream);
  device_.write(step.scope + selections, scope.tokens.data(), sets * 8, device_.context.stream);
  cuda::LossParams p = loss_params(step);
  p.terms = loss_terms_;
  p.sums = step.losses;
  device_.add_losses(p, device_.context.stream);
}

void DeviceLayer::drop(DeviceStep& step) {
  const Routing sizes{.tokens = step.tokens, .k = config_.k, .experts = config_.experts};
  const std::int64_t most = capacity_of(config_.capacity, sizes);
  if (most < 0) return;
  device_.drop_pairs({.tokens = step.tokens,
                      .k = static_cast<std::int32_t>(config_.k),
                      .experts = static_cast<std::int32_t>(config_.experts),
                      .most = most,
                      .policy = config_.capacity.policy,
                      .indices = step.selected,
                      .weights = step.selected_weights,
                      .kept = step.indices,
                      .kept_weights = step.weights,
                      .room = drop_room_,
                      .dropped = place_.counts + config_.experts + 1},
                     device_.context.stream);
}

void DeviceLayer::update_bias(std::span<const std::int64_t> counts, float step, float* bias,
                              void* stream) const {
  device_.write(bias_counts_, counts.data(), config_.experts * 8, stream);
  device_.update_bias({.experts = static_cast<std::int32_t>(config_.experts),
                       .step = step,
                       .counts = bias_counts_,
                       .bias = bias},
                      stream);
}

}  // namespace annulus::moe
