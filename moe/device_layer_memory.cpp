// What a layer in device memory holds, and which part of it other ranks address.
#include "moe/device_layer.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>

namespace annulus::moe {
namespace {

constexpr std::int64_t kAlignment = 256;  // of parts: rows move 16 bytes at a time

std::int64_t aligned(std::int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

std::int64_t capacity_rows(const LayerConfig& c, const DeviceRows& rows, std::int64_t ranks) {
  const std::int64_t most = ranks * rows.max_tokens * std::min(c.k, c.experts / ranks);
  return std::max<std::int64_t>(1, rows.capacity > 0 ? std::min(rows.capacity, most) : most);
}

ExpertShape shape_of(const LayerConfig& c, std::int64_t ffn) {
  return {.activation = c.activation, .dtype = c.dtype, .hidden = c.hidden, .ffn = ffn};
}

LayerConfig checked(const LayerConfig& c, std::int64_t ranks) {
  if (c.experts > cuda::kMostExperts || c.k > cuda::kMostSlots || ranks > cuda::kMostRanks) {
    throw Unsupported(
        fmt::format("MoE layer on a GPU: {} experts, {} of them a token, {} ranks: kernels serve "
                    "up to {}, {}, {}",
                    c.experts, c.k, ranks, cuda::kMostExperts, cuda::kMostSlots, cuda::kMostRanks));
  }
  if (c.router) check(*c.router);
  return c;
}

}  // namespace

DeviceLayer::Region DeviceLayer::region_of(const LayerConfig& c, const DeviceRows& rows,
                                           std::int64_t ranks) {
  const std::int64_t capacity = capacity_rows(c, rows, ranks);
  const std::int64_t row = c.hidden * size_of(c.dtype);
  const bool once = rows.once_a_rank && ranks > 1;
  Region r{};
  const auto take = [&r](std::int64_t bytes) {
    const std::int64_t at = r.bytes;
    r.bytes += aligned(bytes);
    return at;
  };
  r.rows = take(capacity * row);
  r.y_rows = take(capacity * row);
  r.dy_rows = take(capacity * row);
  r.weights = take(capacity * 4);
  r.dweights = take(capacity * 4);
  r.tokens = take(once ? ranks * rows.max_tokens * row : 0);
  r.source_of = take(once ? capacity * 8 : 0);
  return r;
}

std::int64_t DeviceLayer::region_bytes(const LayerConfig& c, const DeviceRows& rows,
                                       std::int64_t ranks) {
  return region_of(c, rows, ranks).bytes;
}

DeviceLayer::DeviceLayer(const LayerConfig& config, const DeviceRows& rows, const Device& device,
                         DevicePeers* peers)
    : config_(checked(config, peers == nullptr ? 1 : peers->group().ranks)),
      rows_{rows.max_tokens, rows.capacity,
            rows.once_a_rank && (peers == nullptr || peers->carrier() == nullptr), rows.recompute},
      max_tokens_(rows.max_tokens),
      device_(device),
      peers_(peers),
      ranks_(peers == nullptr ? 1 : peers->group().ranks),
      me_(peers == nullptr ? 0 : peers->group().me),
      capacity_(capacity_rows(config, rows, ranks_)),
      region_(region_of(config, rows, ranks_)),
      experts_(*device.kernel, shape_of(config, config.ffn)),
      shared_(*device.kernel, shape_of(config, config.shared_ffn)) {
  take_routing();
  take_balance();
  take_rows();
}

std::int64_t DeviceLayer::loss_words() const {
  return has_losses(config_) ? sets_of(config_) * (config_.experts + 1) : 0;
}

void DeviceLayer::take_balance() {
  const bool drops = config_.capacity.factor != 0.0;
  const std::int64_t noisy = config_.jitter != 0.0 ? max_tokens_ * config_.hidden : 0;
  drop_room_ = room_.take<std::int32_t>(device_, drops ? config_.experts * max_tokens_ : 0);
  bias_counts_ = room_.take<std::int64_t>(device_, config_.experts);
  loss_terms_ = room_.take<double>(device_, has_losses(config_) ? 2 * max_tokens_ : 0);
  noisy_x_ = room_.take(device_, noisy * size_of(config_.dtype));
  noisy_dx_ = room_.take<float>(device_, noisy);
}

void DeviceLayer::take_routing() {
  const std::int64_t experts = config_.experts;
  const std::int64_t pairs = max_tokens_ * config_.k;
  const std::int64_t logits = config_.router ? max_tokens_ * experts : 0;
  dlogits_ = room_.take<float>(device_, logits);
  dlogits_high_ = dlogits_low_ = nullptr;
  if (config_.dtype != DType::f32) {
    dlogits_high_ = room_.take(device_, logits * size_of(config_.dtype));
    dlogits_low_ = room_.take(device_, logits * size_of(config_.dtype));
  }
  dweights_ = room_.take<float>(device_, pairs);
  if (config_.router) route_ = cuda::route_params(*config_.router);
  place_.tokens = static_cast<std::int32_t>(max_tokens_);
  place_.k = static_cast<std::int32_t>(config_.k);
  place_.experts = static_cast<std::int32_t>(experts);
  place_.ranks = place_.sources = static_cast<std::int32_t>(ranks_);
  place_.source = static_cast<std::int32_t>(me_);
  place_.room = room_.take<std::int32_t>(device_, cuda::place_room(place_));
  // With what one copy to the host brings beside.
  place_.counts = room_.take<std::int64_t>(device_, counts_width() + loss_words());
  place_.rank_tokens = place_.counts + experts + 2;
  route_.bad_tokens = reinterpret_cast<unsigned*>(place_.counts + experts);
  matrix_ = room_.take<std::int64_t>(device_, ranks_ * experts);
  place_.matrix = ranks_ == 1 ? place_.counts : matrix_;
  place_.expert_first = room_.take<std::int64_t>(device_, 2 * experts);
  place_.expert_rows = place_.expert_first + experts;
  place_.rank_rows = room_.take<std::int64_t>(device_, ranks_);
  place_.unique_first = room_.take<std::int64_t>(device_, ranks_ + 1);
  place_.unique_tokens =
      room_.take<std::int64_t>(device_, max_tokens_ * std::min(config_.k, ranks_));
}

void DeviceLayer::take_rows() {
  const std::int64_t element = size_of(config_.dtype);
  const std::int64_t between = hidden_width(config_.activation, config_.ffn);
  const std::int64_t shared = config_.shared_ffn;
  if (peers_ == nullptr || in_messages()) own_region_ = room_.take(device_, region_.bytes);
  between_ = room_.take(device_, capacity_ * between * element);
  activated_ = room_.take(device_, capacity_ * config_.ffn * element);
  dactivated_ = room_.take(device_, capacity_ * config_.ffn * element);
  shared_between_ =
      room_.take(device_, max_tokens_ * hidden_width(config_.activation, shared) * element);
  shared_activated_ = room_.take(device_, max_tokens_ * shared * element);
  shared_dactivated_ = room_.take(device_, max_tokens_ * shared * element);
  if (in_messages()) take_messages();
  const std::int64_t pairs = rows_.capacity > 0 || in_messages() ? max_tokens_ * config_.k : 0;
  back_ = room_.take(device_, pairs * config_.hidden * element);
  back_at_ = room_.take<std::int64_t>(device_, pairs);
  round_rows_.reserve(static_cast<std::size_t>(config_.experts / ranks_));
  more_ = room_.take<float>(device_, max_tokens_ * config_.hidden);
}

void DeviceLayer::take_messages() {
  const std::int64_t pairs = max_tokens_ * config_.k, experts = config_.experts;
  sent_ = place_;
  sent_.ranks = sent_.sources = 1;
  sent_.source = 0;
  sent_.room = room_.take<std::int32_t>(device_, cuda::place_room(sent_));
  sent_.matrix = sent_.counts = room_.take<std::int64_t>(device_, experts);
  sent_.rank_tokens = nullptr;
  sent_.rank = room_.take<std::int32_t>(device_, pairs);
  sent_.expert_first = room_.take<std::int64_t>(device_, 2 * experts);
  sent_.expert_rows = sent_.expert_first + experts;
  sent_.rank_rows = room_.take<std::int64_t>(device_, 1);
  sent_.unique_first = room_.take<std::int64_t>(device_, 2);
  sent_.unique_tokens = room_.take<std::int64_t>(device_, max_tokens_);
  sent_.unique_of = room_.take<std::int64_t>(device_, pairs);
  packed_ = room_.take(device_, pairs * row_bytes());
  packed_values_ = room_.take<float>(device_, pairs);
  back_values_ = room_.take<float>(device_, pairs);
}

DeviceStep DeviceLayer::make_step() const {
  const std::int64_t pairs = max_tokens_ * config_.k;
  DeviceStep step;
  if (config_.router) step.logits = step.room.take<float>(device_, max_tokens_ * config_.experts);
  step.selected = step.indices = step.room.take<std::int32_t>(device_, pairs);
  step.selected_weights = step.weights = step.room.take<float>(device_, pairs);
  if (config_.capacity.factor != 0.0) {
    step.indices = step.room.take<std::int32_t>(device_, pairs);
    step.weights = step.room.take<float>(device_, pairs);
  }
  if (has_losses(config_)) {
    step.scope = step.room.take<std::int64_t>(device_, loss_words());
    step.losses = step.room.take<double>(device_, 2);
    if (sets_of(config_) > 1) step.set_of = step.room.take<std::int32_t>(device_, max_tokens_);
  }
  step.rank = step.room.take<std::int32_t>(device_, pairs);
  step.row = step.room.take<std::int64_t>(device_, pairs);
  step.unique_of = step.room.take<std::int64_t>(device_, pairs);
  if (in_messages()) step.sent_at = step.room.take<std::int64_t>(device_, pairs);
  step.kept = make_kept();
  step.counts.resize(static_cast<std::size_t>(ranks_ * counts_width()));
  step.counts_width = counts_width();
  step.expert_rows.reserve(static_cast<std::size_t>(config_.experts / ranks_));
  return step;
}

RowBuffers DeviceLayer::row_buffers() const {
  return {.x = own(region_.rows),
          .between = between_,
          .activated = activated_,
          .weights = own_values(region_.weights),
          .y = own(region_.y_rows),
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

}  // namespace annulus::moe
