#include "launch/bench/moe/run.h"

#include "launch/bench/element.h"
#include "launch/bench/measure.h"

#include <annulus/collective.h>

#include <algorithm>
#include <chrono>

namespace annulus::launch {
namespace {

using Part = MoeSource::Part;

moe::LayerOptions options_of(Mesh& mesh, const MoeRequest& request, std::int64_t tokens) {
  moe::LayerOptions options = request.options;
  options.max_tokens = std::ranges::max(gather_one(mesh, tokens));
  return options;
}

/// A row as it lies: from its number on, `stride` elements apart.
void store(const Tensor& to, std::int64_t first, std::int64_t stride,
           const std::vector<double>& row) {
  std::int64_t at = first;
  for (const double value : row) {
    store_element(to.view().data, to.view().dtype, at, value);
    at += stride;
  }
}

MoeRun::Matrices matrices(DType dtype, std::int64_t experts, std::int64_t ffn,
                          const moe::LayerConfig& c) {
  const std::int64_t gates = c.activation == moe::Activation::swiglu ? experts : 0;
  return {Tensor(dtype, gates, ffn, c.hidden), Tensor(dtype, experts, ffn, c.hidden),
          Tensor(dtype, experts, c.hidden, ffn)};
}

/// [tokens, width] of a tensor with a first axis of 1.
TensorView flat(const Tensor& tensor) {
  const TensorView& v = tensor.view();
  return {v.data, v.dtype, {v.shape[1], v.shape[2]}};
}

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void fill(const MoeRun::Matrices& to, const MoeSource& source, Part gate, std::int64_t first,
          const moe::LayerConfig& c) {
  std::vector<double> row(static_cast<std::size_t>(c.hidden));
  const auto up = static_cast<Part>(static_cast<int>(gate) + 1);
  const auto down = static_cast<Part>(static_cast<int>(gate) + 2);
  const std::int64_t experts = to.up.view().shape[0];
  const std::int64_t ffn = to.up.view().shape[1];
  for (std::int64_t e = 0; e < experts; ++e) {
    for (std::int64_t f = 0; f < ffn; ++f) {
      const std::int64_t at = (e * ffn + f) * c.hidden;
      source.weights(up, first + e, f, row.data());
      store(to.up, at, 1, row);
      source.weights(down, first + e, f, row.data());
      store(to.down, e * ffn * c.hidden + f, ffn, row);
      if (c.activation != moe::Activation::swiglu) continue;
      source.weights(gate, first + e, f, row.data());
      store(to.gate, at, 1, row);
    }
  }
}

}  // namespace

MoeRun::MoeRun(Mesh& mesh, const MoeRequest& request, std::uint64_t seed,
               std::vector<std::int64_t> tokens, bool backward)
    : mesh_(mesh),
      request_(request),
      source_(request, seed),
      tokens_(std::move(tokens)),
      layer_(mesh, request.config,
             options_of(mesh, request, static_cast<std::int64_t>(tokens_.size()))),
      step_(layer_.make_step()),
      balanced_(source_.routing(RoutingKind::balanced, tokens_)) {
  if (request.routing != RoutingKind::router) routing_ = source_.routing(request.routing, tokens_);
  fill_weights();
  fill_tokens(backward);
}

void MoeRun::fill_weights() {
  const moe::LayerConfig& c = request_.config;
  const std::int64_t local = layer_.local_experts();
  const std::int64_t shared = c.shared_ffn > 0 ? 1 : 0;
  experts_ = matrices(c.dtype, local, c.ffn, c);
  shared_ = matrices(c.dtype, shared, c.shared_ffn, c);
  dexperts_ = matrices(DType::f32, local, c.ffn, c);
  dshared_ = matrices(DType::f32, shared, c.shared_ffn, c);
  fill(experts_, source_, Part::gate, layer_.expert_rank() * local, c);
  fill(shared_, source_, Part::shared_gate, 0, c);
  if (!c.router) return;
  router_ = Tensor(DType::f32, 1, c.experts, c.hidden);
  drouter_ = Tensor(DType::f32, 1, c.experts, c.hidden);
  std::vector<double> row(static_cast<std::size_t>(c.hidden));
  for (std::int64_t e = 0; e < c.experts; ++e) {
    source_.weights(Part::router, 0, e, row.data());
    store(router_, e * c.hidden, 1, row);
  }
}

void MoeRun::fill_tokens(bool backward) {
  const moe::LayerConfig& c = request_.config;
  const auto tokens = static_cast<std::int64_t>(tokens_.size());
  x_ = Tensor(c.dtype, 1, tokens, c.hidden);
  y_ = Tensor(c.dtype, 1, tokens, c.hidden);
  if (backward) {
    dy_ = Tensor(c.dtype, 1, tokens, c.hidden);
    dx_ = Tensor(c.dtype, 1, tokens, c.hidden);
    dweights_.resize(static_cast<std::size_t>(tokens * c.k));
  }
  std::vector<double> row(static_cast<std::size_t>(c.hidden));
  for (std::int64_t t = 0; t < tokens; ++t) {
    source_.x(tokens_[static_cast<std::size_t>(t)], row.data());
    store(x_, t * c.hidden, 1, row);
    if (!backward) continue;
    source_.dy(tokens_[static_cast<std::size_t>(t)], row.data());
    store(dy_, t * c.hidden, 1, row);
  }
}

moe::LayerWeights MoeRun::weights() const {
  moe::LayerWeights w;
  w.experts = experts_.weights();
  w.shared = shared_.weights();
  if (request_.config.router) w.router = flat(router_);
  return w;
}

double MoeRun::forward(bool balanced) {
  barrier(mesh_, "before a timed call");
  const double start = seconds();
  if (balanced) {
    layer_.forward(flat(x_), weights(), balanced_, flat(y_), step_);
  } else if (request_.routing == RoutingKind::router) {
    layer_.forward(flat(x_), weights(), flat(y_), step_);
  } else {
    layer_.forward(flat(x_), weights(), routing_, flat(y_), step_);
  }
  return seconds() - start;
}

double MoeRun::backward() {
  moe::LayerGradients gradients;
  gradients.experts = dexperts_.gradients();
  gradients.shared = dshared_.gradients();
  if (request_.config.router) gradients.router = flat(drouter_);
  gradients.assign = true;
  barrier(mesh_, "before a timed call");
  const double start = seconds();
  layer_.backward(flat(dy_), flat(x_), weights(), flat(dx_), gradients, step_, dweights_);
  return seconds() - start;
}

}  // namespace annulus::launch
