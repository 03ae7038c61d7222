// Gates between the matrices of experts.
#include "moe/kernels/cuda/device/activate.cuh"
#include "moe/kernels/cuda/launch.h"

#include <cuda_runtime.h>

namespace annulus::moe::cuda {

namespace {

template <typename T, int kWidth>
__global__ void __launch_bounds__(kGateThreads)
    activate_kernel(const __grid_constant__ ActivateParams p) {
  activate_row<T, kWidth>(p, blockIdx.x);
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kGateThreads)
    activate_backward_kernel(const __grid_constant__ ActivateParams p) {
  __shared__ GateShared shared;
  activate_row_backward<T, kWidth>(p, shared, blockIdx.x);
}

template <typename T>
KernelEntries entries_for() {
  constexpr int kWidth = 16 / static_cast<int>(sizeof(T));
  return entries_of(&activate_kernel<T, kWidth>, &activate_kernel<T, 1>,
                    &activate_backward_kernel<T, kWidth>, &activate_backward_kernel<T, 1>);
}

template <typename T, int kWidth>
void launch(const ActivateParams& p, bool backward, cudaStream_t stream) {
  const auto kernel = backward ? &activate_backward_kernel<T, kWidth> : &activate_kernel<T, kWidth>;
  kernel<<<static_cast<unsigned>(p.rows), kGateThreads, 0, stream>>>(p);
}

template <typename T>
void launch(const ActivateParams& p, bool backward, cudaStream_t stream) {
  constexpr int kWidth = 16 / static_cast<int>(sizeof(T));
  std::uintptr_t all = static_cast<std::uintptr_t>(p.ffn) * sizeof(T);
  for (const void* pointer : {p.hidden, static_cast<const void*>(p.activated), p.dactivated,
                              static_cast<const void*>(p.dhidden)}) {
    all |= reinterpret_cast<std::uintptr_t>(pointer);
  }
  if (all % 16 == 0) return launch<T, kWidth>(p, backward, stream);
  launch<T, 1>(p, backward, stream);
}

}  // namespace

KernelEntries activate_entries() {
  return entries_for<Bf16>() + entries_for<Half>() + entries_for<float>();
}

void activate_rows(const ActivateParams& p, bool backward, void* stream) {
  if (p.rows == 0) return;
  auto* on = static_cast<cudaStream_t>(stream);
  if (p.dtype == DType::bf16) {
    launch<Bf16>(p, backward, on);
  } else if (p.dtype == DType::f16) {
    launch<Half>(p, backward, on);
  } else {
    launch<float>(p, backward, on);
  }
  check_launch("activation");
}

}  // namespace annulus::moe::cuda
