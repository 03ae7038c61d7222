#pragma once

#include "runtime/base/cuda_check.h"
#include "runtime/base/handle.h"

#include <cuda_runtime_api.h>

namespace annulus {

struct CudaStreamTraits {
  using Type = cudaStream_t;
  static Type null() { return nullptr; }
  static void close(Type stream) noexcept { (void)cudaStreamDestroy(stream); }
};
using CudaStream = UniqueHandle<CudaStreamTraits>;

struct CudaEventTraits {
  using Type = cudaEvent_t;
  static Type null() { return nullptr; }
  static void close(Type event) noexcept { (void)cudaEventDestroy(event); }
};
using CudaEvent = UniqueHandle<CudaEventTraits>;

/// A stream that the legacy default stream does not wait for.
inline CudaStream make_stream() {
  CudaStream stream;
  check_cuda(cudaStreamCreateWithFlags(stream.out(), cudaStreamNonBlocking), "cudaStreamCreate");
  return stream;
}

/// The same, and its kernels take the next free SM before those of other streams: kernels that move
/// data beside long ones.
inline CudaStream make_urgent_stream() {
  int least = 0;
  int greatest = 0;
  check_cuda(cudaDeviceGetStreamPriorityRange(&least, &greatest), "stream priorities");
  CudaStream stream;
  check_cuda(cudaStreamCreateWithPriority(stream.out(), cudaStreamNonBlocking, greatest),
             "cudaStreamCreateWithPriority");
  return stream;
}

/// An event that orders streams, and with `timing` can be timed between.
inline CudaEvent make_event(bool timing = false) {
  CudaEvent event;
  const unsigned flags = timing ? cudaEventDefault : cudaEventDisableTiming;
  check_cuda(cudaEventCreateWithFlags(event.out(), flags), "cudaEventCreate");
  return event;
}

}  // namespace annulus
