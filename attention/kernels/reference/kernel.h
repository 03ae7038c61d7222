#pragma once

#include "attention/kernels/dispatch.h"

namespace annulus::attn::reference {

/// Float64 loops over single pairs: every element type, every head dim, slow.
const Kernel& reference_kernel();

}  // namespace annulus::attn::reference
