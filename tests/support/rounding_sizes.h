#pragma once

#include "tests/support/oracle.h"

namespace annulus::testing {

/// How large an error each element of a result may have, where P, dS and results are rounded to
/// problem.dtype once and all else is exact: its root mean square by first order, for the worst
/// mantissas. So errors in units of these are the same everywhere: near a document's first row,
/// where one rounded probability is all that a row has, and in the middle. `truth`:
/// oracle_attention's, with gradients. lse stays empty.
///
/// A rounding is off by at most sqrt(3) times its size, either way alike. A sum of such errors is
/// above t of its own sizes once in exp(t * t / 2) / 2 elements at most (Hoeffding).
OracleResult rounding_sizes(const OracleProblem& problem, const OracleInputs& inputs,
                            const OracleResult& truth);

}  // namespace annulus::testing
