#include "attention/kernels/dispatch.h"

#include "attention/kernels/cpu/flash1.h"
#include "attention/kernels/cpu/flash2.h"
#include "attention/kernels/cpu/naive.h"
#include "attention/kernels/cuda/table.h"
#include "attention/kernels/reference/kernel.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace annulus::attn {

namespace {

std::string describe(std::string_view name, const KernelQuery& query) {
  return fmt::format("{} kernel '{}' for {} head_dim {} head_dim_v {} {}", query.backend, name,
                     name_of(query.dtype), query.head_dim, query.head_dim_v,
                     query.backward ? "backward" : "forward");
}

}  // namespace

std::span<const Kernel* const> kernels() {
  static const std::vector<const Kernel*> table = [] {
    std::vector<const Kernel*> rows{&cpu::flash2_kernel(), &cpu::flash1_kernel(),
                                    &cpu::naive_kernel(), &reference::reference_kernel()};
    const std::span<const Kernel* const> device = cuda::kernels();
    rows.insert(rows.end(), device.begin(), device.end());
    return rows;
  }();
  return table;
}

std::vector<const Kernel*> kernels(std::string_view backend) {
  std::vector<const Kernel*> rows;
  std::copy_if(kernels().begin(), kernels().end(), std::back_inserter(rows),
               [&](const Kernel* kernel) { return kernel->backend == backend; });
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
