#include "launch/bench/moe/oracle.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace annulus::launch {
namespace {

using Part = MoeSource::Part;

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

void add(double factor, const std::vector<double>& from, double* to) {
  for (std::size_t i = 0; i < from.size(); ++i) to[i] += factor * from[i];
}

/// Scores over all experts, or over the selected ones where the router knows no others.
std::vector<double> router_weights(const moe::RouterConfig& router, std::span<const double> z,
                                   std::span<const std::int32_t> selected) {
  const bool sigmoid = router.score == moe::Score::sigmoid;
  const double most = *std::ranges::max_element(z);
  double all = 0;
  for (const double value : z) all += std::exp(value - most);
  std::vector<double> w;
  double sum = 0;
  for (const std::int32_t e : selected) {
    const double value = z[static_cast<std::size_t>(e)];
    w.push_back(sigmoid ? 1 / (1 + std::exp(-value)) : std::exp(value - most) / all);
    sum += w.back();
  }
  const bool normal = router.score == moe::Score::softmax_selected ||
                      (router.renormalize && !(sigmoid && selected.size() == 1));
  for (double& value : w) {
    if (normal) value /= sigmoid ? sum + router.epsilon : sum;
    value *= router.scale;
  }
  return w;
}

}  // namespace

OracleExpert::OracleExpert(const MoeRequest& request, const MoeSource& source, bool shared,
                           std::int64_t expert)
    : request_(request),
      source_(source),
      gated_(request.config.activation == moe::Activation::swiglu),
      shared_(shared),
      expert_(expert),
      gate_(static_cast<std::size_t>(request.config.hidden)),
      up_(gate_),
      down_(gate_) {}

void OracleExpert::take(std::int64_t ffn) {
  if (gated_) {
    source_.weights(shared_ ? Part::shared_gate : Part::gate, expert_, ffn, gate_.data());
  }
  source_.weights(shared_ ? Part::shared_up : Part::up, expert_, ffn, up_.data());
  source_.weights(shared_ ? Part::shared_down : Part::down, expert_, ffn, down_.data());
}

OracleExpert::Column OracleExpert::column(const OracleToken& t) const {
  Column c;
  const double u = dot(t.x, up_);
  const double g = gated_ ? dot(t.x, gate_) : 0.0;
  const double s = 1 / (1 + std::exp(-g));
  const double phi = 0.5 * std::erfc(-u / std::numbers::sqrt2);
  c.a = gated_ ? g * s * u : u * phi;
  if (t.dy.empty()) return c;
  c.da = dot(t.dy, down_);
  const double da = t.weight * c.da;
  if (gated_) {
    c.dgate = da * u * s * (1 + g * (1 - s));
    c.dup = da * g * s;
  } else {
    c.dup = da * (phi + u * std::exp(-u * u / 2) / std::sqrt(2 * std::numbers::pi));
  }
  return c;
}

void OracleExpert::run(std::span<OracleToken*> tokens) {
  const std::int64_t ffn = shared_ ? request_.config.shared_ffn : request_.config.ffn;
  for (std::int64_t f = 0; f < ffn; ++f) {
    take(f);
    for (OracleToken* t : tokens) {
      const Column c = column(*t);
      if (t->y != nullptr) add(t->weight * c.a, down_, t->y);
      if (t->dx == nullptr) continue;
      t->dweight += c.da * c.a;
      add(c.dup, up_, t->dx);
      if (gated_) add(c.dgate, gate_, t->dx);
    }
  }
}

void OracleExpert::add_gradients(const OracleToken& token, OracleGradients& gradients) {
  std::size_t at = 0;
  for (const std::int64_t f : gradients.ffn) {
    take(f);
    const Column c = column(token);
    add(c.dgate, token.x, gradients.gate.data() + at);
    add(c.dup, token.x, gradients.up.data() + at);
    add(token.weight * c.a, token.dy, gradients.down.data() + at);
    at += token.x.size();
  }
}

OracleRouting oracle_router(const moe::RouterConfig& router, std::span<const double> logits,
                            std::span<const std::int32_t> selected,
                            std::span<const double> dweights) {
  constexpr double kStep = 1e-5;  // the error of a central difference is 1e-10
  OracleRouting result{.weights = router_weights(router, logits, selected), .dlogits = {}};
  if (dweights.empty()) return result;
  std::vector<double> z(logits.begin(), logits.end());
  for (double& value : z) {
    const double kept = value;
    double slope = 0;
    for (const double sign : {1.0, -1.0}) {
      value = kept + sign * kStep;
      const std::vector<double> w = router_weights(router, z, selected);
      for (std::size_t s = 0; s < w.size(); ++s) slope += sign * w[s] * dweights[s];
    }
    value = kept;
    result.dlogits.push_back(slope / (2 * kStep));
  }
  return result;
}

}  // namespace annulus::launch
