#pragma once

#include "tests/support/oracle.h"

#include <string>

namespace annulus::testing {

/// Errors of a result as shares of their bounds: at most 1 is right.
struct Shares {
  double out = 0.0, lse = 0.0, dq = 0.0, dk = 0.0, dv = 0.0;
  double worst() const;
};

Shares shares_of(const OracleResult& actual, const OracleResult& truth, const OracleResult& naive);

bool same_bits(const OracleResult& a, const OracleResult& b);
/// Which tensors differ, in how many elements, and by how much at most; empty: none.
std::string differences(const OracleResult& a, const OracleResult& b);

}  // namespace annulus::testing
