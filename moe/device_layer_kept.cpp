// What a forward leaves for its backward. The rows that came, and what enters the activation, lie
// in the layer until its next call; whoever displaces them saves them to their step first, where
// `recompute` wants that. A backward that follows its forward pays nothing.
#include "moe/device_layer.h"

namespace annulus::moe {

std::shared_ptr<KeptRows> DeviceLayer::make_kept() const {
  if (rows_.recompute == Recompute::dispatch) return nullptr;
  auto kept = std::make_shared<KeptRows>();
  kept->x = kept->room.take(device_, capacity_ * row_bytes());
  kept->weights = kept->room.take<float>(device_, capacity_);
  if (rows_.recompute == Recompute::activation) {
    kept->between = kept->room.take(device_, capacity_ * between_bytes());
  }
  return kept;
}

/// Of several rounds the last alone is left, which is of no use.
DeviceLayer::Rows DeviceLayer::rows_of(const DeviceStep& step) const {
  if (held_ == step.call) return Rows::here;
  return step.kept != nullptr && step.kept->call == step.call ? Rows::kept : Rows::gone;
}

/// A forward of `step` begins.
void DeviceLayer::hold(DeviceStep& step) {
  save_held(step.kept.get());
  if (step.kept != nullptr) step.kept->call = 0;
  step.call = held_ = ++calls_;
  held_kept_ = step.kept;
  held_rows_ = 0;
}

/// To the step whose rows lie here, unless that is gone or `next`. Other ranks store rows here when
/// they have met this one after that, in forward for counts.
void DeviceLayer::save_held(const KeptRows* next) {
  const std::shared_ptr<KeptRows> kept = held_ != 0 ? held_kept_.lock() : nullptr;
  if (kept == nullptr || kept.get() == next) return;
  const auto copy = [&](const void* from, void* to, std::int64_t bytes) {
    device_.kernel->copy({.rows = held_rows_,
                          .bytes = bytes,
                          .from_at = nullptr,
                          .from = from,
                          .from_stride = bytes,
                          .to_at = nullptr,
                          .to = to,
                          .to_stride = bytes},
                         device_.context);
  };
  copy(own(region_.rows), kept->x, row_bytes());
  copy(own(region_.weights), kept->weights, static_cast<std::int64_t>(sizeof(float)));
  if (kept->between != nullptr) copy(between_, kept->between, between_bytes());
  kept->call = held_;
}

/// A backward of `step` begins: it uses the layer's buffers whoever's rows lie there. Where it
/// sends x again, no meeting would come before that, so here is one.
void DeviceLayer::make_way(const DeviceStep& step) {
  if (held_ == 0 || held_ == step.call) return;
  save_held(step.kept.get());
  held_ = 0;
  if (rows_.recompute == Recompute::dispatch || rows_of(step) != Rows::gone) return;
  meet("rows of another step", device_.context.stream);
}

RowBuffers DeviceLayer::buffers_of(const DeviceStep& step) const {
  RowBuffers buffers = row_buffers();
  if (rows_of(step) != Rows::kept) return buffers;
  buffers.x = step.kept->x;
  buffers.weights = step.kept->weights;
  if (step.kept->between != nullptr) buffers.between = step.kept->between;
  return buffers;
}

}  // namespace annulus::moe
