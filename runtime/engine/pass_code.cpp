#include "runtime/engine/pass_code.h"

#include "attention/execute/cuda/row_kernels.h"
#include "attention/execute/launches.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace annulus::engine {

void load_code(LoadedKernels& loaded, const Plan& plan, Pass pass, const attn::Kernel& kernel) {
  loaded.load(attn::row_entries());
  if (kernel.entries == nullptr) return;
  loaded.load(kernel.entries(attn::kernel_query(plan.request().problem, pass, kernel.backend)));
}

std::string kinds_of(const attn::DeviceExecutor& executor, const Plan& plan, Pass pass,
                     const attn::Kernel& kernel, bool deterministic, int sm_limit) {
  const Problem& p = plan.request().problem;
  return fmt::format("{} {} {} {} {} {} {} {} {}", kernel.name, name_of(p.dtype), p.head_dim,
                     *p.head_dim_v, p.softcap != 0, static_cast<int>(pass), deterministic, sm_limit,
                     fmt::join(executor.kinds(), " "));
}

}  // namespace annulus::engine
