// Linked with --wrap: calls of the CUDA runtime come here. Launches are noted, nothing runs.
#include "tests/engine/noted_launches.h"

#include <cuda_runtime_api.h>

#include <cstddef>

namespace annulus::testing {
namespace {

std::map<const void*, std::string>& registered() {
  static std::map<const void*, std::string> kernels;
  return kernels;
}

}  // namespace

const std::map<const void*, std::string>& registered_kernels() { return registered(); }

NotedLaunches& noted_launches() {
  static NotedLaunches noted;
  return noted;
}

}  // namespace annulus::testing

using annulus::testing::noted_launches;
using annulus::testing::registered;

extern "C" {

void __real___cudaRegisterFunction(void**, const char*, char*, const char*, int, void*, void*,
                                   void*, void*, int*);

void __wrap___cudaRegisterFunction(void** binary, const char* host, char* device, const char* name,
                                   int threads, void* tid, void* bid, void* block, void* grid,
                                   int* warp) {
  registered()[host] = name;
  __real___cudaRegisterFunction(binary, host, device, name, threads, tid, bid, block, grid, warp);
}

// What <<<>>> becomes: a handle of the kernel, then its launch.
cudaError_t __wrap___cudaGetKernel(cudaKernel_t* kernel, const void* entry) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(entry));
  return cudaSuccess;
}

cudaError_t __wrap___cudaLaunchKernel(cudaKernel_t kernel, dim3, dim3, void**, std::size_t,
                                      cudaStream_t) {
  noted_launches().launched.insert(reinterpret_cast<const void*>(kernel));
  return cudaSuccess;
}

cudaError_t __wrap_cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void* entry, void**) {
  noted_launches().launched.insert(entry);
  return cudaSuccess;
}

cudaError_t __wrap_cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* entry) {
  *attributes = {};
  noted_launches().loaded.insert(entry);
  return cudaSuccess;
}

cudaError_t __wrap_cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
cudaError_t __wrap_cudaGetLastError() { return cudaSuccess; }
cudaError_t __wrap_cudaMemsetAsync(void*, int, std::size_t, cudaStream_t) { return cudaSuccess; }
cudaError_t __wrap_cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

}  // extern "C"
