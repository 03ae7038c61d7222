#include "runtime/engine/gpu/device.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <atomic>

namespace annulus::engine {

void check_cuda(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    throw DeviceError(fmt::format("{}: {}", what, cudaGetErrorString(status)));
  }
}

Stream make_stream() {
  Stream stream;
  check_cuda(cudaStreamCreateWithFlags(stream.out(), cudaStreamNonBlocking), "cudaStreamCreate");
  return stream;
}

Event make_event() {
  Event event;
  check_cuda(cudaEventCreate(event.out()), "cudaEventCreate");
  return event;
}

DeviceMemory make_memory(std::size_t bytes) {
  DeviceMemory memory;
  check_cuda(cudaMalloc(memory.out(), bytes), "cudaMalloc");
  return memory;
}

OnDevice::OnDevice(int device) {
  check_cuda(cudaGetDevice(&before_), "cudaGetDevice");
  check_cuda(cudaSetDevice(device), "cudaSetDevice");
}

SharedWords::SharedWords(std::size_t count) : count_(count) {
  check_cuda(cudaHostAlloc(memory_.out(), count * sizeof(std::uint32_t),
                           cudaHostAllocPortable | cudaHostAllocMapped),
             "cudaHostAlloc");
  words_ = static_cast<std::uint32_t*>(memory_.get());
  fill(0);
}

std::uint32_t SharedWords::read(std::size_t i) const {
  return std::atomic_ref<std::uint32_t>(words_[i]).load();
}

void SharedWords::write(std::size_t i, std::uint32_t value) {
  std::atomic_ref<std::uint32_t>(words_[i]).store(value);
}

void SharedWords::fill(std::uint32_t value) {
  for (std::size_t i = 0; i < count_; ++i) write(i, value);
}

bool finished(const Event& event) {
  const cudaError_t status = cudaEventQuery(event.get());
  if (status == cudaErrorNotReady) return false;
  check_cuda(status, "cudaEventQuery");
  return true;
}

void await_event(const Event& event, double timeout_s, const char* what) {
  const Deadline deadline(timeout_s);
  if (await(deadline, [&] { return finished(event); })) return;
  throw Timeout(fmt::format("{} did not finish within {} s", what, timeout_s));
}

namespace {

template <typename Function>
void find_function(const char* name, Function& function) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result{};
  if (cudaGetDriverEntryPointByVersion(name, &found, CUDA_VERSION, cudaEnableDefault, &result) ==
          cudaSuccess &&
      result == cudaDriverEntryPointSuccess) {
    function = reinterpret_cast<Function>(found);
  }
}

}  // namespace

DriverFunctions driver_functions() {
  DriverFunctions functions;
  find_function("cuStreamWriteValue32", functions.write_value);
  find_function("cuStreamWaitValue32", functions.wait_value);
  return functions;
}

}  // namespace annulus::engine
