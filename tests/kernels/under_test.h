#pragma once

#include "attention/kernels/dispatch.h"

#include <vector>

namespace annulus::testing {

/// The kernels that this binary's conformance tests run: each binary defines it. They take host
/// memory.
std::vector<const attn::Kernel*> kernels_under_test();

}  // namespace annulus::testing
