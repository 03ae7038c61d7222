// Linked with --wrap: calls of the CUDA runtime come here.
#include "tests/engine/pool_runtime.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace annulus::testing {

PoolRuntime& pool_runtime() {
  static PoolRuntime runtime;
  return runtime;
}

void PoolRuntime::play() {
  for (const auto& work : std::exchange(enqueued, {})) work();
}

}  // namespace annulus::testing

using annulus::testing::pool_runtime;

namespace {

cudaError_t waits() {
  ++pool_runtime().waits;
  return cudaSuccess;
}

}  // namespace

extern "C" {

cudaError_t __wrap_cudaMalloc(void** data, std::size_t bytes) {
  *data = std::memset(std::aligned_alloc(256, (bytes + 255) / 256 * 256), 0xff, bytes);
  return waits();
}
cudaError_t __wrap_cudaFree(void* data) {
  std::free(data);
  return waits();
}
cudaError_t __wrap_cudaMemcpy(void*, const void*, std::size_t, cudaMemcpyKind) { return waits(); }
cudaError_t __wrap_cudaDeviceSynchronize() { return waits(); }
cudaError_t __wrap_cudaStreamSynchronize(cudaStream_t) { return waits(); }

cudaError_t __wrap_cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) {
  *pool = reinterpret_cast<cudaMemPool_t>(&pool_runtime());
  return cudaSuccess;
}
cudaError_t __wrap_cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
  return cudaSuccess;
}
cudaError_t __wrap_cudaMemPoolDestroy(cudaMemPool_t) { return cudaSuccess; }

cudaError_t __wrap_cudaMallocFromPoolAsync(void** data, std::size_t bytes, cudaMemPool_t,
                                           cudaStream_t) {
  *data = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  auto& runtime = pool_runtime();
  runtime.taken[static_cast<std::byte*>(*data)] = bytes;
  std::size_t all = 0;
  for (const auto& [at, size] : runtime.taken) all += size;
  runtime.most_taken = std::max(runtime.most_taken, all);
  return cudaSuccess;
}
cudaError_t __wrap_cudaFreeAsync(void* data, cudaStream_t) {
  if (pool_runtime().taken.erase(static_cast<std::byte*>(data)) == 0) return cudaErrorInvalidValue;
  pool_runtime().enqueued.push_back([data] { std::free(data); });
  return cudaSuccess;
}

cudaError_t __wrap_cudaHostAlloc(void** data, std::size_t bytes, unsigned) {
  ++pool_runtime().pinned;
  *data = std::aligned_alloc(256, bytes);
  return cudaSuccess;
}
cudaError_t __wrap_cudaFreeHost(void* data) {
  std::free(data);
  return cudaSuccess;
}

cudaError_t __wrap_cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(new char);
  pool_runtime().events[*event] = true;
  return cudaSuccess;
}
cudaError_t __wrap_cudaEventDestroy(cudaEvent_t event) {
  pool_runtime().events.erase(event);
  delete reinterpret_cast<char*>(event);
  return cudaSuccess;
}
cudaError_t __wrap_cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  pool_runtime().events[event] = false;
  pool_runtime().enqueued.push_back([event] { pool_runtime().events[event] = true; });
  return cudaSuccess;
}
cudaError_t __wrap_cudaEventQuery(cudaEvent_t event) {
  return pool_runtime().events.at(event) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t __wrap_cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = pool_runtime().capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t __wrap_cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) {
  return cudaSuccess;
}
cudaError_t __wrap_cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t __wrap_cudaGetLastError() { return cudaSuccess; }

}  // extern "C"
