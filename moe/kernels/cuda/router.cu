// Routers: a warp a token, its experts in registers.
#include "moe/kernels/cuda/device/router.cuh"

#include <cuda_runtime.h>

namespace annulus::moe::cuda {

namespace {

constexpr int kWarps = 8;

template <int kEach>
__global__ void __launch_bounds__(kWarps* kWarp)
    route_kernel(const __grid_constant__ RouteParams p) {
  const std::int64_t token = std::int64_t{blockIdx.x} * kWarps + warp_id();
  if (token < p.tokens) route_token<kEach>(p, token);
}

}  // namespace

void route(RouteParams p, void* stream) {
  if (p.tokens == 0) return;
  const auto address = reinterpret_cast<std::uintptr_t>(p.logits);
  p.wide = p.experts % 4 == 0 && address % 16 == 0;
  const auto kernel = p.experts <= 32    ? &route_kernel<1>
                      : p.experts <= 128 ? &route_kernel<4>
                      : p.experts <= 256 ? &route_kernel<8>
                                         : &route_kernel<16>;
  const auto blocks = static_cast<unsigned>((p.tokens + kWarps - 1) / kWarps);
  kernel<<<blocks, kWarps * kWarp, 0, static_cast<cudaStream_t>(stream)>>>(p);
  check_launch("route");
}

}  // namespace annulus::moe::cuda
