// Steps that are exponentiated under the maxima of before (Tuning::late_maxima) give the bits of
// steps that look for theirs, whatever scores do from one step to the next.
#include "tests/emulate/forward_check.h"
#include "tests/support/hopper_candidates.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <ostream>
#include <string_view>
#include <vector>

namespace annulus::testing {
namespace {

struct Pair {
  std::int64_t head_dim;
  std::string_view late, early;
  friend std::ostream& operator<<(std::ostream& to, const Pair& p) { return to << p.head_dim; }
};

constexpr std::int64_t kSeq = 1000;

class LateMaxima : public ::testing::TestWithParam<Pair> {
 protected:
  LateMaxima() {
    problem_.terms.clear();
    problem_.seq = 70;
    problem_.seq_kv = kSeq;
  }

  /// Keys from `first` on, `count` of them, are `factor` times as large.
  void enlarge(std::int64_t first, std::int64_t count, double factor) {
    const std::int64_t row = problem_.heads_kv * problem_.head_dim;
    for (std::int64_t i = first * row; i < (first + count) * row; ++i) {
      inputs_.k[static_cast<std::size_t>(i)] *= factor;
    }
  }

  RunResult run(std::string_view candidate) const {
    const Emulation emulation{.seed = 3, .candidate = candidate};
    const attn::Kernel& kernel = emulated_hopper(emulation);
    const attn::TileLimits tiles = kernel.tiles(
        {.head_dim = problem_.head_dim, .head_dim_v = problem_.head_dim, .softcap = false});
    const TestLaunch launch =
        make_launch(problem_, one_segment(problem_), {tiles.rows, tiles.keys});
    return run_kernel(kernel, {launch}, inputs_, {.gap = 8, .gap_step = 8, .backward = false});
  }

  void expect_same_bits() const {
    const RunResult late = run(GetParam().late), early = run(GetParam().early);
    for (const auto& [a, b] : {std::pair{&late.values.out, &early.values.out},
                               std::pair{&late.values.lse, &early.values.lse}}) {
      ASSERT_EQ(a->size(), b->size());
      for (std::size_t i = 0; i < a->size(); ++i) {
        // NaN for NaN, too.
        ASSERT_TRUE((*a)[i] == (*b)[i] || (std::isnan((*a)[i]) && std::isnan((*b)[i])))
            << "element " << i << ": " << (*a)[i] << ", early " << (*b)[i];
      }
    }
  }

  OracleProblem problem_ = of_dims(problem_of(kSeq, GetParam().head_dim), GetParam().head_dim);
  OracleInputs inputs_ = random_inputs(problem_of(kSeq, GetParam().head_dim), 5);
};

TEST_P(LateMaxima, WhereTheyStay) { expect_same_bits(); }

/// By less than 2^8, by more, beyond what f32 can hold, and a second time.
TEST_P(LateMaxima, WhereTheyGrow) {
  enlarge(300, 2, 3.0);
  enlarge(430, 3, 9.0);
  enlarge(600, 1, 90.0);
  enlarge(750, 1, 300.0);
  expect_same_bits();
}

/// All keys of a step, a little: no score is large, their sum is.
TEST_P(LateMaxima, WhereSumsAreLarge) {
  problem_.softmax_scale = 0.7;
  enlarge(480, 300, 2.5);
  expect_same_bits();
}

TEST_P(LateMaxima, WhereScoresAreNoNumbersOrInfinite) {
  enlarge(400, 1, std::numeric_limits<double>::infinity());
  enlarge(700, 1, std::numeric_limits<double>::quiet_NaN());
  expect_same_bits();
}

/// Rows that have seen nothing when their first whole step comes.
TEST_P(LateMaxima, BehindStepsThatShowNothing) {
  Mask::Rows rows;
  rows.intervals.assign(70, {KeyInterval{200, kSeq}});
  for (std::size_t i = 0; i < rows.intervals.size(); i += 3) {
    rows.intervals[i] = {KeyInterval{0, kSeq}};
  }
  problem_.terms = {rows};
  expect_same_bits();
}

INSTANTIATE_TEST_SUITE_P(Hopper, LateMaxima,
                         ::testing::Values(Pair{128, "short_128", "short_early_128"},
                                           Pair{128, "", "early_128"}, Pair{64, "", "early_64"},
                                           Pair{96, "turns_96", "early_96"},
                                           Pair{256, "", "early_256"}));

}  // namespace
}  // namespace annulus::testing
