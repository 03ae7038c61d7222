// The steps of the oracle that tests of GPU kernels take (tests/gpu/device_oracle.h), on the host:
// the same results as the oracle's, of which they share no line.

#include "tests/support/oracle_arrays.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <utility>
#include <vector>

namespace annulus::testing {
namespace {

/// Arrays of the host that begin as NaN.
class OnHost {
 public:
  template <typename T>
  const T* bring(const std::vector<T>& values) {
    return keep(values);
  }
  template <typename Real>
  Real* take(std::int64_t count) {
    return keep(std::vector<Real>(static_cast<std::size_t>(count), static_cast<Real>(NAN)));
  }
  template <typename Real>
  void run(const OracleSteps<Real>& steps, OracleStep step) {
    // From the end: no element may need another one of its step.
    for (std::int64_t n = steps.count(step); n-- > 0;) steps.run(step, n);
  }
  template <typename Real>
  std::vector<Real> fetch(const Real* from, std::int64_t count) {
    return {from, from + count};
  }

 private:
  template <typename T>
  T* keep(std::vector<T> values) {
    const auto kept = std::make_shared<std::vector<T>>(std::move(values));
    arrays_.push_back(kept);
    return kept->data();
  }
  std::vector<std::shared_ptr<void>> arrays_;
};

OracleProblem grouped() {
  return {.batch = 2,
          .seq = 37,
          .seq_kv = 53,
          .heads = 6,
          .heads_kv = 2,
          .head_dim = 7,
          .head_dim_v = 12,
          .dtype = DType::bf16,
          .terms = {Mask::Causal{}},
          .softcap = 3.0,
          .softmax_scale = 0.4};
}

void expect_near(const char* what, const std::vector<double>& actual,
                 const std::vector<double>& expected, double bound) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    if (actual[i] == expected[i]) continue;  // equal infinities
    ASSERT_LE(std::abs(actual[i] - expected[i]), bound) << what << " at " << i;
  }
}

void expect_same(const OracleResult& actual, const OracleResult& expected, double bound) {
  expect_near("out", actual.out, expected.out, bound);
  expect_near("lse", actual.lse, expected.lse, bound);
  expect_near("dq", actual.dq, expected.dq, bound);
  expect_near("dk", actual.dk, expected.dk, bound);
  expect_near("dv", actual.dv, expected.dv, bound);
}

/// Low precision sums in the same order, so that only a compiler that fuses products could differ.
void check(const OracleProblem& p) {
  OracleInputs inputs = random_inputs(p, 3);
  for (const bool backward : {true, false}) {
    if (!backward) inputs.dout.clear();
    OnHost truth;
    OnHost naive;
    expect_same(run_oracle_steps<double>(p, inputs, OracleRounding::none, truth),
                oracle_attention(p, inputs), 1e-12);
    expect_same(run_oracle_steps<float>(p, inputs, naive_rounding(p.dtype), naive),
                naive_attention(p, inputs), 1e-5);
  }
}

TEST(OracleSteps, GiveTheOraclesResults) {
  OracleProblem p = grouped();
  check(p);
  p.softcap = 0.0;
  p.dtype = DType::f16;
  p.terms = {Mask::Window{5, 2}};
  p.seq_kv = 11;
  check(p);
  p.dtype = DType::f32;
  p.heads_kv = 6;
  p.terms.clear();
  check(p);
}

TEST(OracleSteps, LeaveRowsThatSeeNothingZero) {
  OracleProblem p = grouped();
  Mask::Rows rows;
  for (std::int64_t i = 0; i < p.seq; ++i) {
    rows.intervals.push_back(i % 4 == 0
                                 ? RowIntervals{}
                                 : RowIntervals{KeyInterval{i / 3, i / 2}, KeyInterval{i, i + 7}});
  }
  p.terms = {rows};
  check(p);
  p.seq_kv = 0;
  p.terms.clear();
  check(p);
}

}  // namespace
}  // namespace annulus::testing
