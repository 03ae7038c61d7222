#pragma once

#include <annulus/moe.h>

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace annulus::moe::testing {

/// What a router must do with one token, in float64, by repeated search for the largest: nothing of
/// moe/ is used but the configuration.
struct OracleToken {
  std::vector<std::int64_t> chosen;
  std::vector<double> weights;
  /// The smallest difference that decided anything: below some 1e-6 f32 may decide otherwise.
  double gap = 1e300;
};

OracleToken oracle_token(const RouterConfig& config, std::span<const double> logits,
                         std::span<const float> bias);
/// The weights alone, for a selection that is given: what finite differences need.
std::vector<double> oracle_weights(const RouterConfig& config, std::span<const double> logits,
                                   std::span<const std::int64_t> chosen);
/// q of the balancing losses.
std::vector<double> oracle_shares(const RouterConfig& config, std::span<const double> logits);
double oracle_lse(std::span<const double> logits);
/// The k largest, lower index first.
std::vector<std::int64_t> largest(std::span<const double> values, std::int64_t k);

/// A router with its tokens. The seed makes it; print describe() where a test fails.
struct Case {
  std::uint64_t seed = 0;
  RouterConfig config;
  std::int64_t tokens = 0;
  std::vector<float> logits;
  std::vector<float> bias;

  RouterInput input() const { return {.logits = logits, .bias = bias, .padding = {}}; }
  std::vector<double> row(std::int64_t token) const;
  std::string describe() const;
};

/// Odd sizes first; every kind of router, with and without bias, groups and renormalisation.
Case random_case(std::uint64_t seed);

}  // namespace annulus::moe::testing
