// Routers: a warp a token, its experts in registers.
#include "moe/kernels/cuda/device/router.cuh"
#include "moe/kernels/cuda/device/router_backward.cuh"

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

template <int kEach>
__global__ void __launch_bounds__(kWarps* kWarp)
    route_backward_kernel(const __grid_constant__ RouteBackwardParams p) {
  const std::int64_t token = std::int64_t{blockIdx.x} * kWarps + warp_id();
  if (token < p.forward.tokens) route_token_backward<kEach>(p, token);
}

bool may_be_wide(const RouteParams& p) {
  return p.experts % 4 == 0 && reinterpret_cast<std::uintptr_t>(p.logits) % 16 == 0;
}

}  // namespace

KernelEntries router_entries() {
  return entries_of(&route_kernel<1>, &route_kernel<4>, &route_kernel<8>, &route_kernel<16>) +
         entries_of(&route_backward_kernel<1>, &route_backward_kernel<4>, &route_backward_kernel<8>,
                    &route_backward_kernel<16>);
}

void route(RouteParams p, void* stream) {
  if (p.tokens == 0) return;
  p.wide = may_be_wide(p);
  const auto kernel = p.experts <= 32    ? &route_kernel<1>
                      : p.experts <= 128 ? &route_kernel<4>
                      : p.experts <= 256 ? &route_kernel<8>
                                         : &route_kernel<16>;
  const auto blocks = static_cast<unsigned>((p.tokens + kWarps - 1) / kWarps);
  kernel<<<blocks, kWarps * kWarp, 0, static_cast<cudaStream_t>(stream)>>>(p);
  check_launch("route");
}

void route_backward(RouteBackwardParams p, void* stream) {
  const std::int64_t experts = p.forward.experts;
  if (p.forward.tokens == 0) return;
  p.forward.wide = may_be_wide(p.forward);
  const auto kernel = experts <= 32    ? &route_backward_kernel<1>
                      : experts <= 128 ? &route_backward_kernel<4>
                      : experts <= 256 ? &route_backward_kernel<8>
                                       : &route_backward_kernel<16>;
  const auto blocks = static_cast<unsigned>((p.forward.tokens + kWarps - 1) / kWarps);
  kernel<<<blocks, kWarps * kWarp, 0, static_cast<cudaStream_t>(stream)>>>(p);
  check_launch("route_backward");
}

}  // namespace annulus::moe::cuda
