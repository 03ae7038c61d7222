#include "attention/kernels/dispatch.h"

#include "attention/kernels/cpu/flash1.h"
#include "attention/kernels/cpu/flash2.h"
#include "attention/kernels/cpu/naive.h"
#include "attention/kernels/cuda/table.h"
#include "attention/kernels/reference/kernel.h"
#include "attention/kernels/registry.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <memory>
#include <span>

namespace annulus::attn {

namespace {

std::string describe(std::string_view name, const KernelQuery& query) {
  return fmt::format("{} kernel '{}' for {} head_dim {} head_dim_v {} {}", query.backend, name,
                     name_of(query.dtype), query.head_dim, query.head_dim_v,
                     query.backward ? "backward" : "forward");
}

/// Every row of this moment. Those that are registered stay readable while this lives, even where
/// another thread ends a registration.
struct Rows {
  Rows() : all(built_kernels()), registered(registered_kernels()) {
    for (const std::shared_ptr<const Kernel>& row : registered) all.push_back(row.get());
  }

  std::vector<const Kernel*> all;
  std::vector<std::shared_ptr<const Kernel>> registered;
};

}  // namespace

std::vector<const Kernel*> built_kernels() {
  std::vector<const Kernel*> rows{&cpu::flash2_kernel(), &cpu::flash1_kernel(),
                                  &cpu::naive_kernel(), &reference::reference_kernel()};
  const std::span<const Kernel* const> device = cuda::kernels();
  rows.insert(rows.end(), device.begin(), device.end());
  return rows;
}

std::vector<const Kernel*> kernels() { return Rows().all; }

std::vector<const Kernel*> kernels(std::string_view backend) {
  Rows rows;
  std::erase_if(rows.all, [&](const Kernel* kernel) { return kernel->backend != backend; });
  return rows.all;
}

const Kernel& find_kernel(std::string_view name, const KernelQuery& query) {
  std::string built;
  const Rows rows;
  for (const Kernel* kernel : rows.all) {
    const std::string reason = kernel->refuses(query);
    if (reason.empty() && kernel->backend == query.backend &&
        (name == kernel->name || (name == "auto" && !kernel->by_name_only))) {
      return *kernel;
    }
    built += fmt::format("{}{} ({}{}{})", built.empty() ? "" : ", ", kernel->name, kernel->backend,
                         reason.empty() ? "" : ": ", reason);
  }
  throw Unsupported(fmt::format("no {}; built: {}", describe(name, query), built));
}

}  // namespace annulus::attn
