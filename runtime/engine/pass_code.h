#pragma once

#include "attention/execute/cuda/device_executor.h"
#include "runtime/base/kernel_entries.h"

#include <annulus/plan.h>

#include <string>

namespace annulus::engine {

/// All that calls of a plan may launch: which kernels they are depends on how the caller's tensors
/// lie, of which bind knows nothing.
void load_code(LoadedKernels& loaded, const Plan& plan, Pass pass, const attn::Kernel& kernel);

/// What a kernel's calls are made of, beside the sizes of one problem: what a first call makes
/// depends on this alone.
std::string kinds_of(const attn::DeviceExecutor& executor, const Plan& plan, Pass pass,
                     const attn::Kernel& kernel, bool deterministic, int sm_limit);

}  // namespace annulus::engine
