#pragma once

#include "tests/support/launch.h"
#include "tests/support/oracle.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

namespace annulus::testing {

/// The largest distance; infinities must agree, a NaN is infinitely far.
inline double max_error(const std::vector<double>& actual, const std::vector<double>& expected) {
  double worst = actual.size() == expected.size() ? 0.0 : HUGE_VAL;
  for (std::size_t i = 0; i < std::min(actual.size(), expected.size()); ++i) {
    if (actual[i] == expected[i]) continue;
    const double error = std::abs(actual[i] - expected[i]);
    worst = std::isnan(error) ? HUGE_VAL : std::max(worst, error);
  }
  return worst;
}

inline double largest(const std::vector<double>& values) {
  double worst = 0.0;
  for (const double value : values) {
    if (std::isfinite(value)) worst = std::max(worst, std::abs(value));
  }
  return worst;
}

/// Error at most twice that of the naive formula, plus a few f32 units of the largest value.
/// `slack`: for what the naive formula gets exact by luck, such as dP - delta = 0 of a lone key.
inline void expect_close(const char* what, const std::vector<double>& actual,
                         const std::vector<double>& truth, const std::vector<double>& naive,
                         double slack) {
  const double bound = 2.0 * max_error(naive, truth) + 4 * 0x1p-23 * largest(truth) + slack;
  EXPECT_LE(max_error(actual, truth), bound) << what;
}

inline void expect_close(const OracleResult& actual, const OracleResult& truth,
                         const OracleResult& naive) {
  expect_close("out", actual.out, truth.out, naive.out, 0.0);
  expect_close("lse", actual.lse, truth.lse, naive.lse, 2e-7);
  if (actual.dq.empty()) return;
  expect_close("dq", actual.dq, truth.dq, naive.dq, 4e-6);
  expect_close("dk", actual.dk, truth.dk, naive.dk, 4e-6);
  expect_close("dv", actual.dv, truth.dv, naive.dv, 0.0);
}

inline void expect_same_bits(const OracleResult& a, const OracleResult& b) {
  EXPECT_EQ(max_error(a.out, b.out), 0.0) << "out";
  EXPECT_EQ(max_error(a.lse, b.lse), 0.0) << "lse";
  EXPECT_EQ(max_error(a.dq, b.dq), 0.0) << "dq";
  EXPECT_EQ(max_error(a.dk, b.dk), 0.0) << "dk";
  EXPECT_EQ(max_error(a.dv, b.dv), 0.0) << "dv";
}

}  // namespace annulus::testing
