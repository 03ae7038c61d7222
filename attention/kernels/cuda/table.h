#pragma once

#include "attention/kernels/dispatch.h"

#include <span>

namespace annulus::attn::cuda {

/// The rows of this back end, best first; none where it is not built.
std::span<const Kernel* const> kernels();

}  // namespace annulus::attn::cuda
