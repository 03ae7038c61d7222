#include "runtime/engine/gpu/kernels.h"

#include <annulus/error.h>

#include <string>

namespace annulus::engine {
namespace {

constexpr int kThreads = 1024;

void require(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    throw DeviceError(std::string(what) + ": " + cudaGetErrorString(status));
  }
}

/// Ends by itself, so that a host that died leaves no busy device.
__device__ void hold(const volatile std::uint32_t* release, std::uint64_t limit_ns) {
  std::uint64_t begin = 0;
  std::uint64_t now = 0;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
  do {
    __nanosleep(200);
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  } while (*release == 0 && now - begin < limit_ns);
}

__global__ void gate(const std::uint32_t* release, std::uint64_t limit_ns) {
  hold(release, limit_ns);
}

__global__ void __launch_bounds__(kThreads)
    full(volatile std::uint32_t* arrived, const std::uint32_t* release, std::uint64_t limit_ns) {
  if (threadIdx.x == 0) {
    arrived[blockIdx.x] = 1;
    hold(release, limit_ns);
  }
  __syncthreads();
}

__global__ void small(std::uint32_t* word) {
  if (threadIdx.x == 0) *word = 1;
}

std::uint64_t nanoseconds(double seconds) { return static_cast<std::uint64_t>(seconds * 1e9); }

}  // namespace

void launch_gate(const std::uint32_t* release, double limit_s, cudaStream_t stream) {
  gate<<<1, 1, 0, stream>>>(release, nanoseconds(limit_s));
  require(cudaGetLastError(), "gate");
}

int full_grid() {
  int device = 0;
  int sms = 0;
  int blocks = 0;
  require(cudaGetDevice(&device), "cudaGetDevice");
  require(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device), "SMs");
  require(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, full, kThreads, 0), "occupancy");
  return sms * blocks;
}

void launch_full(std::uint32_t* arrived, const std::uint32_t* release, double limit_s,
                 cudaStream_t stream) {
  full<<<full_grid(), kThreads, 0, stream>>>(arrived, release, nanoseconds(limit_s));
  require(cudaGetLastError(), "full kernel");
}

void launch_small(std::uint32_t* word, cudaStream_t stream) {
  small<<<1, 32, 0, stream>>>(word);
  require(cudaGetLastError(), "small kernel");
}

}  // namespace annulus::engine
