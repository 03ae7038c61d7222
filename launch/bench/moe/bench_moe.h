#pragma once

#include "launch/command.h"

namespace annulus::launch {

/// bench --op moe; returns the exit code.
int run_bench_moe(const Call& call);

}  // namespace annulus::launch
