#include "moe/kernels/dispatch.h"

#include "moe/kernels/cpu/kernel.h"
#include "moe/kernels/cuda/kernel.h"

#include <annulus/error.h>

#include <fmt/format.h>

namespace annulus::moe {

const Kernel& kernel(std::string_view backend) {
  if (backend == "cpu") return cpu::kernel();
  const Kernel* device = cuda::kernel();
  if (device != nullptr && backend == device->backend) return *device;
  throw Unsupported(fmt::format("MoE on back end {}: its kernels are not built; built: {}", backend,
                                fmt::join(kernel_backends(), ", ")));
}

std::vector<std::string_view> kernel_backends() {
  if (cuda::kernel() == nullptr) return {"cpu"};
  return {"cpu", "cuda"};
}

}  // namespace annulus::moe
