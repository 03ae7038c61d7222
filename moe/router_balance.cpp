// What is done around a router: the bias of balancing without a loss, and noise on its input.
#include <annulus/error.h>
#include <annulus/moe.h>

#include <fmt/format.h>

#include <cmath>

namespace annulus::moe {
namespace {

/// splitmix64: neighbours of a counter become unrelated.
std::uint64_t mixed(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15ULL;
  value = (value ^ value >> 30U) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ value >> 27U) * 0x94d049bb133111ebULL;
  return value ^ value >> 31U;
}

/// Uniform in [0, 1), of 24 bits: exact in f32.
float uniform(std::uint64_t seed, std::int64_t token, std::int64_t column) {
  const std::uint64_t row = mixed(seed ^ mixed(static_cast<std::uint64_t>(token)));
  const std::uint64_t bits = mixed(row ^ mixed(~static_cast<std::uint64_t>(column)));
  return static_cast<float>(bits >> 40U) * 0x1p-24F;
}

}  // namespace

void update_bias(std::span<const std::int64_t> counts, float step, std::span<float> bias) {
  if (counts.size() != bias.size()) {
    throw InvalidArgument(
        fmt::format("update_bias: {} counts for {} experts", counts.size(), bias.size()));
  }
  std::int64_t sum = 0;
  for (const std::int64_t count : counts) sum += count;
  // mean against count, in integers: equal is equal
  const auto experts = static_cast<std::int64_t>(counts.size());
  for (std::size_t e = 0; e < counts.size(); ++e) {
    const std::int64_t scaled = counts[e] * experts;
    if (sum > scaled) bias[e] += step;
    if (sum < scaled) bias[e] -= step;
  }
}

void jitter(std::span<float> x, std::int64_t hidden, float amount, std::uint64_t seed,
            std::int64_t first_token) {
  if (hidden < 1 || static_cast<std::int64_t>(x.size()) % hidden != 0) {
    throw InvalidArgument(
        fmt::format("jitter: {} values are no rows of hidden {}", x.size(), hidden));
  }
  if (!std::isfinite(amount) || amount < 0 || amount >= 1) {
    throw InvalidArgument(fmt::format("jitter: amount {}: must be in [0, 1)", amount));
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto token = static_cast<std::int64_t>(i) / hidden;
    const auto column = static_cast<std::int64_t>(i) % hidden;
    x[i] *= 1.0F + amount * (2.0F * uniform(seed, first_token + token, column) - 1.0F);
  }
}

}  // namespace annulus::moe
