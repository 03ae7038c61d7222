#pragma once

#include "tests/gpu/kernel_cases.h"

namespace annulus::testing {

/// The problems of the CPU kernels' suite (tests/kernels/oracle_cases_test.cpp), each in dtypes and
/// head dims of the CUDA kernels as well, with tiles that all of those take.
void suite_cases(const Cases& cases);

}  // namespace annulus::testing
