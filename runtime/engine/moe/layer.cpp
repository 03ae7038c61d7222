#include <annulus/moe_layer.h>

#include "comm/mesh.h"
#include "runtime/engine/moe/layer_impl.h"
#include "runtime/engine/session.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <exception>
#include <optional>
#include <string>

namespace annulus::moe {
namespace {

/// FNV-1a: the same on every machine, unlike std::hash.
std::uint32_t hash_of(const std::string& text) {
  std::uint32_t hash = 2166136261U;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U;
  return hash ^ (hash >> 15U);
}

}  // namespace

Layer::Layer(Mesh& mesh, const LayerConfig& config, const LayerOptions& options) {
  comm::Communicator& communicator = *mesh.impl().communicator;
  std::optional<engine::LayerShape> shape;
  std::string summary;
  const auto agreed = [&](const auto& work) {
    std::exception_ptr error;
    try {
      work();
    } catch (...) {
      error = std::current_exception();
    }
    annulus::engine::agree_on_errors(communicator, "moe layer", error);
  };
  agreed([&] {
    shape = engine::shape_of(mesh, config, options);
    summary = engine::summary_of(*shape, mesh.world());
  });
  comm::require_agreement(communicator, "moe layer", summary);
  const std::uint32_t hash = hash_of(summary);
  const int local_rank = shape->on_device() ? comm::local_rank(communicator) : 0;
  agreed([&] {
    impl_ = shape->on_device() ? engine::make_gpu_layer(mesh, *shape, hash, local_rank)
                               : engine::make_host_layer(mesh, *shape, hash);
  });
  agreed([&] { impl_->connect(); });
  mesh.impl().logger.debug("moe layer: {}", summary);
}

Layer::Layer(Layer&&) noexcept = default;
Layer::~Layer() = default;

Step Layer::make_step() const { return Step(impl_->make_step()); }

void Layer::forward(const ConstTensorView& x, const LayerWeights& weights, const TensorView& y,
                    Step& step, Stream stream) {
  impl_->forward({.x = x, .weights = weights, .given = nullptr, .y = y, .stream = stream},
                 step.impl());
}

void Layer::forward(const ConstTensorView& x, const LayerWeights& weights, const Routing& routing,
                    const TensorView& y, Step& step, Stream stream) {
  impl_->forward({.x = x, .weights = weights, .given = &routing, .y = y, .stream = stream},
                 step.impl());
}

void Layer::backward(const ConstTensorView& dy, const ConstTensorView& x,
                     const LayerWeights& weights, const TensorView& dx,
                     const LayerGradients& gradients, Step& step, std::span<float> dweights,
                     Stream stream) {
  impl_->backward({.dy = dy,
                   .x = x,
                   .weights = weights,
                   .dx = dx,
                   .gradients = gradients,
                   .dweights = dweights,
                   .stream = stream},
                  step.impl());
}

int Layer::expert_degree() const { return impl_->shape.group.ranks; }
int Layer::expert_rank() const { return impl_->shape.group.me; }
std::int64_t Layer::local_experts() const { return impl_->shape.local_experts(); }
std::int64_t Layer::capacity() const { return impl_->shape.capacity; }
std::int64_t Layer::bytes() const { return impl_->bytes(); }
std::string Layer::kernel_used() const { return impl_->kernel_used(); }
std::string Layer::backend() const { return impl_->shape.on_device() ? "cuda" : "cpu"; }
int Layer::device() const { return impl_->device(); }
std::int64_t Layer::device_bytes() const { return impl_->device_bytes(); }
std::string Layer::transport() const { return impl_->transport(); }
void Layer::update_bias(std::span<const std::int64_t> counts, float step, std::span<float> bias,
                        Stream stream) const {
  const auto experts = static_cast<std::size_t>(impl_->shape.config.experts);
  if (counts.size() != experts || bias.size() != experts) {
    throw InvalidArgument(fmt::format("moe layer: update_bias: {} counts, a bias of {}, {} experts",
                                      counts.size(), bias.size(), experts));
  }
  impl_->update_bias(counts, step, bias, stream);
}
void Layer::synchronize(Stream stream) const { impl_->synchronize(stream); }

}  // namespace annulus::moe
