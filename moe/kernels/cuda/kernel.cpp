#include "moe/kernels/cuda/kernel.h"

#include "moe/kernels/cuda/launch.h"

namespace annulus::moe::cuda {
namespace {

void activate(const ActivateParams& params, const LaunchContext& context) {
  activate_rows(params, false, context.stream);
}

void activate_backward(const ActivateParams& params, const LaunchContext& context) {
  activate_rows(params, true, context.stream);
}

void sum(const SumParams& params, const LaunchContext& context) {
  CombineParams combined{.sum = params};
  combined.rows[0] = static_cast<const std::byte*>(params.rows);
  combine(combined, 0, context.stream);
}

void copy(const CopyParams& params, const LaunchContext& context) {
  copy_rows(params, context.stream);
}

std::int64_t no_workspace(int /*threads*/) { return 0; }

}  // namespace

KernelEntries entries() {
  return activate_entries() + balance_entries() + placement_entries() + router_entries() +
         rows_entries();
}

const Kernel* kernel() {
  static const Kernel table{.name = "cublas",
                            .backend = "cuda",
                            .multiply = &multiply,
                            .activate = &activate,
                            .activate_backward = &activate_backward,
                            .sum = &sum,
                            .copy = &copy,
                            .workspace_bytes = &no_workspace,
                            .open = &open_blas};
  return &table;
}

}  // namespace annulus::moe::cuda
