// Losses, capacity, bias and noise of routers.
#include "moe/kernels/cuda/device/capacity.cuh"
#include "moe/kernels/cuda/device/jitter.cuh"
#include "moe/kernels/cuda/device/losses.cuh"
#include "moe/kernels/cuda/limits.h"

#include <cuda_runtime.h>

namespace annulus::moe::cuda {

namespace {

constexpr int kWarps = 8;
constexpr std::int64_t kMostBlocks = 1 << 20;

template <int kEach>
__global__ void __launch_bounds__(kWarps* kWarp)
    count_losses_kernel(const __grid_constant__ LossParams p) {
  const std::int64_t token = std::int64_t{blockIdx.x} * kWarps + warp_id();
  if (token < p.route.tokens) count_token<kEach>(p, token);
}

template <int kEach>
__global__ void __launch_bounds__(kWarps* kWarp)
    add_losses_kernel(const __grid_constant__ LossParams p) {
  const std::int64_t token = std::int64_t{blockIdx.x} * kWarps + warp_id();
  if (token < p.route.tokens) add_token<kEach>(p, token);
}

__global__ void __launch_bounds__(kSumThreads)
    sum_losses_kernel(const __grid_constant__ LossParams p) {
  __shared__ double shared[kSumThreads];
  sum_terms(p, shared);
}

__global__ void __launch_bounds__(kDropThreads) drop_kernel(const __grid_constant__ DropParams p) {
  __shared__ DropShared shared;
  drop_of_expert(p, shared, static_cast<int>(blockIdx.x));
}

template <typename T>
__global__ void __launch_bounds__(kJitterThreads)
    jitter_kernel(const __grid_constant__ JitterParams p) {
  for (std::int64_t t = blockIdx.x; t < p.tokens; t += gridDim.x) jitter_token<T>(p, t);
}

__global__ void bias_kernel(const __grid_constant__ BiasParams p) {
  const auto expert = static_cast<int>(threadIdx.x);
  if (expert < p.experts) update_bias_of(p, expert);
}

void prepare(LossParams& p) {
  p.route.wide =
      p.route.experts % 4 == 0 && reinterpret_cast<std::uintptr_t>(p.route.logits) % 16 == 0;
}

unsigned warps_of(const LossParams& p) {
  return static_cast<unsigned>((p.route.tokens + kWarps - 1) / kWarps);
}

/// work.operator()<experts a lane>()
template <typename Work>
void by_width(std::int32_t experts, const Work& work) {
  if (experts <= 32) return work.template operator()<1>();
  if (experts <= 128) return work.template operator()<4>();
  if (experts <= 256) return work.template operator()<8>();
  work.template operator()<16>();
}

}  // namespace

KernelEntries balance_entries() {
  return entries_of(&count_losses_kernel<1>, &count_losses_kernel<4>, &count_losses_kernel<8>,
                    &count_losses_kernel<16>) +
         entries_of(&add_losses_kernel<1>, &add_losses_kernel<4>, &add_losses_kernel<8>,
                    &add_losses_kernel<16>, &sum_losses_kernel) +
         entries_of(&drop_kernel, &bias_kernel) +
         entries_of(&jitter_kernel<Bf16>, &jitter_kernel<Half>, &jitter_kernel<float>);
}

void count_losses(LossParams p, void* stream) {
  if (p.route.tokens == 0) return;
  prepare(p);
  by_width(p.route.experts, [&]<int kEach>() {
    count_losses_kernel<kEach>
        <<<warps_of(p), kWarps * kWarp, 0, static_cast<cudaStream_t>(stream)>>>(p);
  });
  check_launch("count_losses");
}

void add_losses(LossParams p, void* stream) {
  auto* on = static_cast<cudaStream_t>(stream);
  if (p.route.tokens > 0) {
    prepare(p);
    by_width(p.route.experts, [&]<int kEach>() {
      add_losses_kernel<kEach><<<warps_of(p), kWarps * kWarp, 0, on>>>(p);
    });
    check_launch("add_losses");
  }
  if (p.terms == nullptr) return;
  sum_losses_kernel<<<1, kSumThreads, 0, on>>>(p);
  check_launch("sum of losses");
}

void drop_pairs(const DropParams& p, void* stream) {
  check_slots(p.k);
  if (p.tokens == 0) return;
  auto* on = static_cast<cudaStream_t>(stream);
  const auto bytes = static_cast<std::size_t>(p.tokens * p.k * 4);
  (void)cudaMemcpyAsync(p.kept, p.indices, bytes, cudaMemcpyDeviceToDevice, on);
  (void)cudaMemcpyAsync(p.kept_weights, p.weights, bytes, cudaMemcpyDeviceToDevice, on);
  check_launch("copy of pairs");
  drop_kernel<<<static_cast<unsigned>(p.experts), kDropThreads, 0, on>>>(p);
  check_launch("drop_pairs");
}

void jitter(const JitterParams& p, void* stream) {
  if (p.tokens == 0 || p.hidden == 0) return;
  const auto blocks = static_cast<unsigned>(p.tokens < kMostBlocks ? p.tokens : kMostBlocks);
  const auto kernel = p.dtype == DType::bf16  ? &jitter_kernel<Bf16>
                      : p.dtype == DType::f16 ? &jitter_kernel<Half>
                                              : &jitter_kernel<float>;
  kernel<<<blocks, kJitterThreads, 0, static_cast<cudaStream_t>(stream)>>>(p);
  check_launch("jitter");
}

void update_bias(const BiasParams& p, void* stream) {
  if (p.experts == 0) return;
  const unsigned threads = static_cast<unsigned>((p.experts + kWarp - 1) / kWarp * kWarp);
  bias_kernel<<<1, threads, 0, static_cast<cudaStream_t>(stream)>>>(p);
  check_launch("update_bias");
}

}  // namespace annulus::moe::cuda
