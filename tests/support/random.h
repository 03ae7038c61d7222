#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace annulus::testing {

/// `n` normal values. The same seed gives the same values; print it where a test fails.
inline std::vector<double> random_normal(std::int64_t n, std::uint64_t seed, double scale = 1.0) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<double> normal(0.0, scale);
  std::vector<double> values(static_cast<std::size_t>(n));
  for (double& value : values) value = normal(generator);
  return values;
}

/// Uniform in [low, high].
template <typename Generator>
std::int64_t random_between(Generator& generator, std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(generator);
}

}  // namespace annulus::testing
