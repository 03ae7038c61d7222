#pragma once

#include "tests/support/oracle_steps.h"

#include <cuda_runtime_api.h>

namespace annulus::testing {

/// All elements of a step, on the default stream.
cudaError_t run_oracle_step(const OracleSteps<double>& steps, OracleStep step, std::int64_t count);
cudaError_t run_oracle_step(const OracleSteps<float>& steps, OracleStep step, std::int64_t count);

}  // namespace annulus::testing
