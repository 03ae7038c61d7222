#pragma once

#include "moe/kernels/dispatch.h"

#include <memory>

namespace annulus::moe::cuda {

/// Null where no device code was built.
const Kernel* kernel();

std::shared_ptr<void> open_blas();
void multiply(std::span<const Product> products, const LaunchContext& context);

}  // namespace annulus::moe::cuda
