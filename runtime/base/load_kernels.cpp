#include "runtime/base/cuda_check.h"
#include "runtime/base/kernel_entries.h"

#include <cuda_runtime_api.h>

namespace annulus {

/// What NVIDIA's programming guide recommends to this end ("Lazy loading"): it loads, and changes
/// nothing. Microseconds where the code is there.
void load_kernels(const KernelEntries& kernels) {
  for (const void* kernel : kernels) {
    cudaFuncAttributes attributes{};
    check_cuda(cudaFuncGetAttributes(&attributes, kernel), "cudaFuncGetAttributes");
  }
}

}  // namespace annulus
