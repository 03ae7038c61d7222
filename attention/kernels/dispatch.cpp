#include "attention/kernels/dispatch.h"

#include "attention/kernels/cpu/flash1.h"
#include "attention/kernels/cpu/flash2.h"
#include "attention/kernels/cpu/naive.h"
#include "attention/kernels/cuda/table.h"
#include "attention/kernels/reference/kernel.h"
#include "attention/kernels/registry.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <span>

namespace annulus::attn {

namespace {

std::string describe(std::string_view name, const KernelQuery& query) {
  return fmt::format("{} kernel '{}' for {} head_dim {} head_dim_v {} {}", query.backend, name,
                     name_of(query.dtype), query.head_dim, query.head_dim_v,
                     query.backward ? "backward" : "forward");
}

}  // namespace

std::vector<const Kernel*> kernels() {
  std::vector<const Kernel*> rows{&cpu::flash2_kernel(), &cpu::flash1_kernel(),
                                  &cpu::naive_kernel(), &reference::reference_kernel()};
  const std::span<const Kernel* const> device = cuda::kernels();
  rows.insert(rows.end(), device.begin(), device.end());
  const std::vector<const Kernel*> added = registered_kernels();
  rows.insert(rows.end(), added.begin(), added.end());
  return rows;
}

std::vector<const Kernel*> kernels(std::string_view backend) {
  std::vector<const Kernel*> rows = kernels();
  std::erase_if(rows, [&](const Kernel* kernel) { return kernel->backend != backend; });
  return rows;
}

const Kernel& find_kernel(std::string_view name, const KernelQuery& query) {
  std::string built;
  for (const Kernel* kernel : kernels()) {
    const std::string reason = kernel->refuses(query);
    if (reason.empty() && kernel->backend == query.backend &&
        (name == "auto" || name == kernel->name)) {
      return *kernel;
    }
    built += fmt::format("{}{} ({}{}{})", built.empty() ? "" : ", ", kernel->name, kernel->backend,
                         reason.empty() ? "" : ": ", reason);
  }
  throw Unsupported(fmt::format("no {}; built: {}", describe(name, query), built));
}

}  // namespace annulus::attn
