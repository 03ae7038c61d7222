#include "runtime/engine/moe/step.h"

#include <algorithm>

namespace annulus::moe {

Step::Impl::Impl(const engine::LayerShape& shape) {
  const std::int64_t element = size_of(shape.config.dtype);
  const Recompute recompute = shape.options.recompute;
  const auto capacity = static_cast<std::size_t>(shape.capacity);
  row_weights.resize(capacity);
  row_unique.resize(capacity);
  if (recompute != Recompute::dispatch) rows = Buffer(shape.capacity * shape.row_bytes());
  if (recompute == Recompute::activation) {
    between = Buffer(shape.capacity * shape.expert_shape().between() * element);
  }
  if (shape.config.shared_ffn > 0) {
    shared_between = Buffer(shape.options.max_tokens * shape.shared_shape().between() * element);
  }
  if (shape.config.router) {
    logits.resize(static_cast<std::size_t>(shape.options.max_tokens * shape.config.experts));
  }
}

std::int64_t Step::Impl::bytes() const {
  if (device) return device->room.bytes() + (device->kept ? device->kept->room.bytes() : 0);
  return rows.bytes() + between.bytes() + shared_between.bytes() +
         static_cast<std::int64_t>(row_weights.size() * sizeof(float) +
                                   row_unique.size() * sizeof(std::int64_t) +
                                   logits.size() * sizeof(float));
}

Step::Step(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Step::Step(Step&&) noexcept = default;
Step& Step::operator=(Step&&) noexcept = default;
Step::~Step() = default;

void Step::Impl::fetch() {
  if (device && !is_read) read(*this);
}

void Step::set_jitter(std::uint64_t seed, std::int64_t first_token) {
  impl_->next.noise_seed = seed;
  impl_->next.first_token = first_token;
}

void Step::set_sequences(std::span<const std::int32_t> sequence_of) {
  impl_->next.sequence_of.assign(sequence_of.begin(), sequence_of.end());
}

const Routing& Step::routing() const {
  impl_->fetch();
  return impl_->kept;
}
const Routing& Step::selected() const {
  impl_->fetch();
  return impl_->selected;
}
const LayerLoad& Step::load() const { return impl_->load; }
double Step::balance_loss() const {
  impl_->fetch();
  return impl_->balance_loss;
}
double Step::z_loss() const {
  impl_->fetch();
  return impl_->z_loss;
}
std::int64_t Step::bytes() const { return impl_->bytes(); }

}  // namespace annulus::moe
