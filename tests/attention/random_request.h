#pragma once

#include <annulus/layout.h>
#include <annulus/plan.h>
#include <annulus/problem.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace annulus::test {

/// Seeded choices; tests print the seed of each case.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}

  /// In [low, high].
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(engine_() % static_cast<std::uint64_t>(high - low + 1));
  }
  bool one_in(std::int64_t n) { return between(1, n) == 1; }
  template <typename T>
  T any_of(const std::vector<T>& values) {
    return values[static_cast<std::size_t>(
        between(0, static_cast<std::int64_t>(values.size()) - 1))];
  }
  std::mt19937_64& engine() { return engine_; }

 private:
  std::mt19937_64 engine_;
};

/// Lengths, some 0, that sum to `seq`.
std::vector<std::int64_t> random_lengths(Random& random, std::int64_t seq);

/// Up to `most_terms` terms. Documents only where seq_kv = seq. Some masks are beyond what kernels
/// know (more than two intervals a row).
Mask random_mask(Random& random, std::int64_t seq, std::int64_t seq_kv, int most_terms);

/// seq and seq_kv among 0, 1, primes and others up to about `longest`, and a random mask. Resolved.
Problem random_problem(Random& random, std::int64_t longest, int most_terms);

/// Every position of [0, seq) once: strided, out of order, uneven, some ranks without any.
std::vector<Shard> random_shards(Random& random, std::int64_t seq, int world);

/// Any kind.
Layout random_layout(Random& random, const Problem& problem, int world);

/// A small plan of any algorithm, mesh, layout, pass and option, whose mask kernels know.
PlanRequest random_request(Random& random);

/// For messages.
std::string words(const PlanRequest& request);

}  // namespace annulus::test
