#pragma once

#include "attention/kernels/dispatch.h"

namespace annulus::testing {

/// The row of a back end called "outside", which this library knows nothing of.
attn::Kernel outside_kernel();

}  // namespace annulus::testing
