#include "launch/bench/moe/source.h"

#include "launch/bench/tensors.h"

#include <algorithm>
#include <cmath>

namespace annulus::launch {
namespace {

/// 1/sqrt(n) as the nearest power of two.
double scale_of(std::int64_t n) {
  return n < 1 ? 1.0 : std::exp2(-std::round(0.5 * std::log2(static_cast<double>(n))));
}

/// Uniform in [0, 1).
double uniform(std::uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }

}  // namespace

MoeSource::MoeSource(const MoeRequest& request, std::uint64_t seed)
    : request_(request),
      seed_(seed),
      in_scale_(scale_of(request.config.hidden)),
      out_scale_(scale_of(request.config.ffn)),
      shared_out_scale_(scale_of(request.config.shared_ffn)) {
  double sum = 0;
  for (std::int64_t e = 0; e < request.config.experts; ++e) {
    sum += 1.0 / static_cast<double>(e + 1);
    zipf_.push_back(sum);
  }
}

void MoeSource::weights(Part part, std::int64_t expert, std::int64_t row, double* out) const {
  std::uint64_t key = mix(seed_, 1000 + static_cast<std::uint64_t>(part));
  key = mix(mix(key, static_cast<std::uint64_t>(expert)), static_cast<std::uint64_t>(row));
  double scale = in_scale_;
  if (part == Part::down) scale = out_scale_;
  if (part == Part::shared_down) scale = shared_out_scale_;
  for (std::int64_t i = 0; i < request_.config.hidden; ++i) {
    // Odd numbers below 256, so that bf16 holds them.
    const auto bits = static_cast<std::int64_t>(mix(key, static_cast<std::uint64_t>(i)) >> 56);
    out[i] = static_cast<double>(2 * bits - 255) * (scale / 256);
  }
}

void MoeSource::x(std::int64_t token, double* out) const {
  Generator(mix(seed_, 2000), request_.config.dtype)
      .row(Input::q, 0, token, 0, request_.config.hidden, out);
}

void MoeSource::dy(std::int64_t token, double* out) const {
  Generator(mix(seed_, 2000), request_.config.dtype)
      .row(Input::dout, 0, token, 0, request_.config.hidden, out);
}

moe::Routing MoeSource::routing(RoutingKind kind, const std::vector<std::int64_t>& tokens) const {
  const std::int64_t experts = request_.config.experts;
  const std::int64_t k = request_.config.k;
  moe::Routing r{.tokens = static_cast<std::int64_t>(tokens.size()), .k = k, .experts = experts};
  for (const std::int64_t token : tokens) {
    const std::uint64_t key = mix(mix(seed_, 3000), static_cast<std::uint64_t>(token));
    std::uint64_t draw = 0;
    const auto begin = static_cast<std::ptrdiff_t>(r.indices.size());
    for (std::int64_t slot = 0; slot < k; ++slot) {
      std::int64_t expert = kind == RoutingKind::none ? -1 : slot;
      if (kind == RoutingKind::balanced) expert = (token * k + slot) % experts;
      while (kind == RoutingKind::uniform || kind == RoutingKind::zipf) {
        const double u = uniform(mix(key, draw++));
        expert = static_cast<std::int64_t>(u * static_cast<double>(experts));
        if (kind == RoutingKind::zipf) {
          expert = std::ranges::upper_bound(zipf_, u * zipf_.back()) - zipf_.begin();
        }
        expert = std::min(expert, experts - 1);
        if (std::find(r.indices.begin() + begin, r.indices.end(), expert) == r.indices.end()) break;
      }
      r.indices.push_back(static_cast<std::int32_t>(expert));
      r.weights.push_back(
          kind == RoutingKind::none
              ? 0.0F
              : static_cast<float>(
                    (0.5 + uniform(mix(key, 77777 + static_cast<std::uint64_t>(slot)))) /
                    static_cast<double>(k)));
    }
  }
  return r;
}

}  // namespace annulus::launch
