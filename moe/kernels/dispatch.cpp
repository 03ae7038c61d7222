#include "moe/kernels/dispatch.h"

#include "moe/kernels/cpu/kernel.h"

#include <annulus/error.h>

#include <fmt/format.h>

namespace annulus::moe {

const Kernel& kernel(std::string_view backend) {
  if (backend == "cpu") return cpu::kernel();
  throw Unsupported(
      fmt::format("MoE on back end {}: its kernels are not built; built: cpu", backend));
}

std::vector<std::string_view> kernel_backends() { return {"cpu"}; }

}  // namespace annulus::moe
