#include "runtime/cost/counters/device.h"

#include <annulus/error.h>

#include <cuda_runtime.h>
#include <fmt/format.h>

#include <chrono>
#include <thread>

namespace annulus::cost {
namespace {

void require(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    throw DeviceError(fmt::format("{}: {}", what, cudaGetErrorString(status)));
  }
}

}  // namespace

CurrentDevice::CurrentDevice(int device) {
  require(cudaGetDevice(&before_), "cudaGetDevice");
  require(cudaSetDevice(device), "cudaSetDevice");
}

CurrentDevice::~CurrentDevice() { cudaSetDevice(before_); }

CUcontext CurrentDevice::context() const {
  // By name, so that programs start without a driver.
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  require(cudaGetDriverEntryPointByVersion("cuCtxGetCurrent", &function, CUDA_VERSION,
                                           cudaEnableDefault, &found),
          "cudaGetDriverEntryPointByVersion");
  CUcontext context = nullptr;
  if (found != cudaDriverEntryPointSuccess ||
      reinterpret_cast<CUresult (*)(CUcontext*)>(function)(&context) != CUDA_SUCCESS ||
      context == nullptr) {
    throw DeviceError("the driver names no current context");
  }
  return context;
}

void await_stream(void* stream, const Deadline& deadline) {
  auto* const waited = static_cast<cudaStream_t>(stream);
  for (;;) {
    const cudaError_t status = cudaStreamQuery(waited);
    if (status == cudaSuccess) return;
    if (status != cudaErrorNotReady) require(status, "work on the device");
    if (deadline.expired()) {
      throw Timeout(fmt::format("the device did not finish within {} s", deadline.limit_s()));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
}

}  // namespace annulus::cost
