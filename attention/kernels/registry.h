#pragma once

#include "attention/kernels/dispatch.h"

#include <vector>

namespace annulus::attn {

/// The rows of all RegisteredKernel alive, oldest first.
std::vector<const Kernel*> registered_kernels();

}  // namespace annulus::attn
