#include "tests/gpu/second_gpu.h"

#include "tests/gpu/device_kernel.h"

#include <cuda.h>

#include <stdexcept>

namespace annulus::testing {

namespace {

using WriteValue = CUresult (*)(CUstream, CUdeviceptr, cuuint32_t, unsigned);

/// cuStreamWriteValue32: what is before it on the stream is seen by whoever sees the value.
WriteValue write_value() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  check_cuda(cudaGetDriverEntryPointByVersion("cuStreamWriteValue32", &function, 12000,
                                              cudaEnableDefault, &found),
             "cuStreamWriteValue32");
  if (function == nullptr) throw std::runtime_error("the driver has no cuStreamWriteValue32");
  return reinterpret_cast<WriteValue>(function);
}

class OnGpu1 {
 public:
  OnGpu1() { check_cuda(cudaSetDevice(1), "cudaSetDevice"); }
  ~OnGpu1() { (void)cudaSetDevice(0); }
  OnGpu1(const OnGpu1&) = delete;
  OnGpu1& operator=(const OnGpu1&) = delete;
};

}  // namespace

bool SecondGpu::there() {
  int count = 0;
  int reaches = 0;
  check_cuda(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  if (count > 1) check_cuda(cudaDeviceCanAccessPeer(&reaches, 1, 0), "cudaDeviceCanAccessPeer");
  return reaches != 0;
}

SecondGpu::SecondGpu() {
  const OnGpu1 scope;
  const cudaError_t code = cudaDeviceEnablePeerAccess(0, 0);
  if (code == cudaErrorPeerAccessAlreadyEnabled) {
    (void)cudaGetLastError();
  } else {
    check_cuda(code, "cudaDeviceEnablePeerAccess");
  }
  check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
}

SecondGpu::~SecondGpu() {
  for (const Kept& kept : kept_) (void)cudaFree(kept.here);
  (void)cudaStreamDestroy(stream_);
}

void SecondGpu::keep(std::byte* from, std::size_t bytes) {
  const OnGpu1 scope;
  void* here = nullptr;
  check_cuda(cudaMalloc(&here, bytes), "cudaMalloc");
  kept_.push_back({from, static_cast<std::byte*>(here), bytes});
  check_cuda(cudaMemcpyAsync(here, from, bytes, cudaMemcpyDefault, stream_), "copy to GPU 1");
  check_cuda(cudaStreamSynchronize(stream_), "copy to GPU 1");
}

void SecondGpu::put_back(std::uint32_t* flag, std::uint32_t value) const {
  const WriteValue write = write_value();
  const OnGpu1 scope;
  for (const Kept& kept : kept_) {
    check_cuda(cudaMemcpyAsync(kept.home, kept.here, kept.bytes, cudaMemcpyDefault, stream_),
               "copy from GPU 1");
  }
  if (write(stream_, reinterpret_cast<CUdeviceptr>(flag), value, 0) != CUDA_SUCCESS) {
    throw std::runtime_error("cuStreamWriteValue32 into GPU 0's memory failed");
  }
}

void SecondGpu::wait() const { check_cuda(cudaStreamSynchronize(stream_), "what GPU 1 writes"); }

}  // namespace annulus::testing
