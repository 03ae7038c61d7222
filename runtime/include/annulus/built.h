#pragma once

#include <annulus/export.h>
#include <annulus/plan.h>
#include <annulus/tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace annulus {

/// A local kernel of the dispatch table.
struct KernelInfo {
  std::string name;     ///< "flash2"
  std::string backend;  ///< "cpu", "cuda"
};

/// What a kernel may be asked for.
struct KernelAsk {
  std::string backend = "cpu";
  DType dtype = DType::f32;
  std::int64_t head_dim = 64;
  std::int64_t head_dim_v = 64;
  Pass pass = Pass::forward;
  double softmax_scale = 1.0;
};

/// Every kernel that is built, the CPU's first, best first.
ANNULUS_API std::vector<KernelInfo> kernels_built();

/// Why the kernel cannot serve, in words; empty: it serves. Throws InvalidArgument for a name that
/// the back end does not have. Every mask compiles to one form, so no kernel asks for it.
ANNULUS_API std::string kernel_refusal(const std::string& name, const KernelAsk& ask);

/// "local", then, where they are built, "mpi" between processes and "peer", "nccl", "composite"
/// between GPUs.
ANNULUS_API std::vector<std::string> transports_built();

/// The instruction sets that CPU kernels are compiled for and this machine has, best first.
ANNULUS_API std::vector<std::string> simd_targets();

}  // namespace annulus
