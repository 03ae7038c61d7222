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
      balanced_(source_.routing(RoutingKind::balanced, tokens_)),
      place_(layer_.device()) {
  if (request.routing != RoutingKind::router) routing_ = source_.routing(request.routing, tokens_);
  fill_weights();
  fill_tokens(backward);
  put_in_place();
}

void MoeRun::put_in_place() {
  for (const Matrices* m : {&experts_, &shared_}) {
    for (const Tensor* t : {&m->gate, &m->up, &m->down}) place_.put(*t, false);
  }
  for (const Matrices* m : {&dexperts_, &dshared_}) {
    for (const Tensor* t : {&m->gate, &m->up, &m->down}) place_.put(*t, true);
  }
  for (const Tensor* t : {&router_, &x_, &dy_}) place_.put(*t, false);
  for (const Tensor* t : {&drouter_, &y_, &dx_}) place_.put(*t, true);
  place_.put(std::as_writable_bytes(std::span(dweights_)), true);
  barrier(mesh_, "tensors of the experts are in place");
}

void MoeRun::fetch() {
  layer_.synchronize(place_.stream());
  place_.fetch();
}

moe::ExpertWeights MoeRun::weights_of(const Matrices& m) const {
  return {place_.view(m.gate.view()), place_.view(m.up.view()), place_.view(m.down.view())};
}

moe::ExpertGradients MoeRun::gradients_of(const Matrices& m) const {
  return {place_.view(m.gate.view()), place_.view(m.up.view()), place_.view(m.down.view())};
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
  // GPUs multiply by weights of the layer's dtype; these are exact in it.
  router_ = Tensor(layer_.device() >= 0 ? c.dtype : DType::f32, 1, c.experts, c.hidden);
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
  w.experts = weights_of(experts_);
  w.shared = weights_of(shared_);
  if (request_.config.router) w.router = place_.view(flat(router_));
  return w;
}

double MoeRun::forward(Given given) {
  barrier(mesh_, "before a timed call");
  const TensorView x = place_.view(flat(x_)), y = place_.view(flat(y_));
  const moe::LayerWeights w = weights();
  const double start = seconds();
  if (given == Given::balanced) {
    layer_.forward(x, w, balanced_, y, step_, place_.stream());
  } else if (given == Given::asked && request_.routing == RoutingKind::router) {
    layer_.forward(x, w, y, step_, place_.stream());
  } else {
    layer_.forward(x, w, routing_, y, step_, place_.stream());
  }
  layer_.synchronize(place_.stream());
  return seconds() - start;
}

double MoeRun::backward() {
  moe::LayerGradients gradients;
  gradients.experts = gradients_of(dexperts_);
  gradients.shared = gradients_of(dshared_);
  if (request_.config.router) gradients.router = place_.view(flat(drouter_));
  gradients.assign = true;
  barrier(mesh_, "before a timed call");
  const double start = seconds();
  layer_.backward(place_.view(flat(dy_)), place_.view(flat(x_)), weights(), place_.view(flat(dx_)),
                  gradients, step_, place_.view(std::span(dweights_)), place_.stream());
  layer_.synchronize(place_.stream());
  return seconds() - start;
}

}  // namespace annulus::launch
