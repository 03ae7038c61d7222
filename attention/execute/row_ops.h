#pragma once

#include "attention/execute/memory.h"

#include <annulus/plan.h>

namespace annulus::attn {

/// The items that are neither transfers nor attends, on host memory.
void run_prepare(const Prepare& prepare, const Memory& memory);
void run_reduce(const Reduce& reduce, const Memory& memory);
void run_merge(const Merge& merge, const Memory& memory);

}  // namespace annulus::attn
