#pragma once

#include "tests/support/oracle.h"

namespace annulus::testing {

/// oracle_attention() and naive_attention() on GPU 0. Before the first result they are held against
/// those of the host on small problems, and throw where they differ.
OracleResult device_oracle(const OracleProblem& problem, const OracleInputs& inputs);
OracleResult device_naive(const OracleProblem& problem, const OracleInputs& inputs);

/// From here on both are the host's, which take minutes for all cases of kernels_gpu.
void use_host_oracle();

}  // namespace annulus::testing
