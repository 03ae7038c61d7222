#pragma once

#include "attention/kernels/dispatch.h"

#include <memory>
#include <vector>

namespace annulus::attn {

/// The rows that are compiled in, best first; they live for ever.
std::vector<const Kernel*> built_kernels();

/// The rows of all RegisteredKernel alive, oldest first. Shared, because a lookup reads rows whose
/// registrations another thread may end meanwhile.
std::vector<std::shared_ptr<const Kernel>> registered_kernels();

}  // namespace annulus::attn
