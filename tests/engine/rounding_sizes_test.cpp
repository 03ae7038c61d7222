// The measure that 16-bit results are held to: errors of roundings alone are small in it and alike
// for every mask, and a single wrong pair or element is not. The naive formula stands for a kernel.
#include "tests/support/rounding_sizes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace annulus::testing {
namespace {

constexpr double kMostSizes = 7.0;  // as check.cpp has it

struct Measured {
  double most = 0.0, rms = 0.0;
};

Measured in_sizes(const std::vector<double>& x, const std::vector<double>& truth,
                  const std::vector<double>& sizes) {
  Measured m;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const double z = std::abs(x[i] - truth[i]) / sizes[i];
    m.most = std::max(m.most, z);
    m.rms += z * z;
  }
  m.rms = std::sqrt(m.rms / static_cast<double>(truth.size()));
  return m;
}

/// As many key/value heads as query heads: the naive formula rounds key gradients by query head.
Problem problem_of(const Mask& mask, DType dtype) {
  return {.seq = 97, .heads = 2, .head_dim = 32, .dtype = dtype, .mask = mask};
}

std::vector<Mask> masks() {
  return {Mask::full(), Mask::causal(), Mask::window(12),
          Mask::documents({60, 37}) & Mask::window(5)};
}

struct Naive {
  explicit Naive(const Problem& problem, std::uint64_t seed)
      : inputs(random_inputs(oracle_problem(problem), seed)),
        truth(oracle_attention(problem, inputs)),
        sizes(rounding_sizes(oracle_problem(problem), inputs, truth)),
        naive(naive_attention(problem, inputs)) {}

  OracleInputs inputs;
  OracleResult truth, sizes, naive;
};

TEST(RoundingSizes, HoldWhatRoundsOnce) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const Mask& mask : masks()) {
      for (std::uint64_t seed = 1; seed < 4; ++seed) {
        const Naive run(problem_of(mask, dtype), seed);
        const auto expect = [&](const std::vector<double>& x, const std::vector<double>& truth,
                                const std::vector<double>& sizes) {
          const Measured m = in_sizes(x, truth, sizes);
          EXPECT_LE(m.most, 5.0) << mask.name() << " seed " << seed;
          // 0.74 where all is rounded once; naive dS is of a rounded P and rounded again.
          EXPECT_LE(m.rms, 1.0) << mask.name() << " seed " << seed;
          EXPECT_GE(m.rms, 0.6) << mask.name() << " seed " << seed;
        };
        expect(run.naive.out, run.truth.out, run.sizes.out);
        expect(run.naive.dq, run.truth.dq, run.sizes.dq);
        expect(run.naive.dk, run.truth.dk, run.sizes.dk);
        expect(run.naive.dv, run.truth.dv, run.sizes.dv);
      }
    }
  }
}

/// Row 50 and key 48 see each other, or not: an error of one pair among thousands.
TEST(RoundingSizes, ShowAPairThatIsMissing) {
  for (const Mask& mask : masks()) {
    const Problem problem = problem_of(mask, DType::bf16);
    const Naive run(problem, 1);
    std::vector<RowIntervals> rows(97);
    for (std::int64_t i = 0; i < 97; ++i) {
      const bool hidden = i == 50;
      rows[static_cast<std::size_t>(i)] =
          hidden ? RowIntervals{KeyInterval{0, 48}, KeyInterval{49, 97}}
                 : RowIntervals{KeyInterval{0, 97}};
    }
    Problem wrong = problem;
    wrong.mask = mask & Mask::rows(rows);
    const OracleResult naive = naive_attention(wrong, run.inputs);
    EXPECT_GT(in_sizes(naive.out, run.truth.out, run.sizes.out).most, kMostSizes) << mask.name();
    EXPECT_GT(in_sizes(naive.dk, run.truth.dk, run.sizes.dk).most, kMostSizes) << mask.name();
    EXPECT_GT(in_sizes(naive.dv, run.truth.dv, run.sizes.dv).most, kMostSizes) << mask.name();
  }
}

/// A few percent, of an element that a quarter of all exceed.
TEST(RoundingSizes, ShowAnElementOfWrongScale) {
  for (const Mask& mask : masks()) {
    Naive run(problem_of(mask, DType::bf16), 2);
    const auto wrong = [](std::vector<double>& x, const std::vector<double>& truth, double by) {
      std::vector<double> order = truth;
      const auto middle = order.begin() + static_cast<std::ptrdiff_t>(order.size() * 3 / 4);
      std::nth_element(order.begin(), middle, order.end());
      const auto at =
          static_cast<std::size_t>(std::find(truth.begin(), truth.end(), *middle) - truth.begin());
      x[at] = by * truth[at];
    };
    wrong(run.naive.out, run.truth.out, 1.03);
    wrong(run.naive.dv, run.truth.dv, 1.06);
    EXPECT_GT(in_sizes(run.naive.out, run.truth.out, run.sizes.out).most, kMostSizes);
    EXPECT_GT(in_sizes(run.naive.dv, run.truth.dv, run.sizes.dv).most, kMostSizes);
  }
}

/// Nothing reaches a row without keys, nor a key without rows: any number there is wrong.
TEST(RoundingSizes, AllowNothingWhereNothingIsSeen) {
  const Naive run(problem_of(Mask::rows(std::vector<RowIntervals>(97)), DType::bf16), 3);
  for (const auto* sizes : {&run.sizes.out, &run.sizes.dq, &run.sizes.dk, &run.sizes.dv}) {
    EXPECT_LT(*std::max_element(sizes->begin(), sizes->end()), 1e-38);
  }
}

}  // namespace
}  // namespace annulus::testing
