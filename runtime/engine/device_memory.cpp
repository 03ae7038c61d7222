#include <annulus/device_memory.h>

#include "comm/peer/stream_ops.h"
#include "runtime/base/cuda_check.h"
#include "runtime/base/cuda_handles.h"
#include "runtime/base/device_buffer.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <atomic>
#include <exception>
#include <utility>

namespace annulus {
namespace {

void require_size(std::size_t given, std::int64_t bytes) {
  if (static_cast<std::int64_t>(given) == bytes) return;
  throw InvalidArgument(
      fmt::format("device memory of {} bytes meets host memory of {} bytes", bytes, given));
}

cudaStream_t stream_of(const DeviceStream& stream) {
  return static_cast<cudaStream_t>(stream.get());
}

}  // namespace

DeviceBytes::DeviceBytes(std::int64_t bytes, int device) : bytes_(bytes), device_(device) {
  const DeviceScope scope(device);
  DeviceBuffer buffer(bytes);
  if (bytes > 0) {
    check_cuda(cudaMemset(buffer.data(), 0xff, static_cast<std::size_t>(bytes)), "cudaMemset");
    check_cuda(cudaStreamSynchronize(nullptr), "cudaMemset");
  }
  data_ = buffer.data();
  buffer.leak();
}

DeviceBytes::DeviceBytes(DeviceBytes&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      device_(other.device_) {}

DeviceBytes& DeviceBytes::operator=(DeviceBytes&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(device_, other.device_);
  return *this;
}

DeviceBytes::~DeviceBytes() {
  if (data_ != nullptr) (void)cudaFree(data_);
}

void DeviceBytes::upload(std::span<const std::byte> from) {
  require_size(from.size(), bytes_);
  const DeviceScope scope(device_);
  check_cuda(cudaMemcpy(data_, from.data(), from.size(), cudaMemcpyHostToDevice), "upload");
  // From pageable memory the copy returns when the bytes are staged.
  check_cuda(cudaStreamSynchronize(nullptr), "upload");
}

void DeviceBytes::download(std::span<std::byte> to) const {
  require_size(to.size(), bytes_);
  const DeviceScope scope(device_);
  check_cuda(cudaMemcpy(to.data(), data_, to.size(), cudaMemcpyDeviceToHost), "download");
}

DeviceStream::DeviceStream(int device) : device_(device) {
  const DeviceScope scope(device);
  cudaStream_t stream = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  stream_ = stream;
  void* gate = nullptr;
  check_cuda(cudaHostAlloc(&gate, sizeof *gate_, cudaHostAllocMapped), "cudaHostAlloc");
  gate_ = static_cast<std::uint32_t*>(gate);
  *gate_ = 0;
}

DeviceStream::DeviceStream(DeviceStream&& other) noexcept
    : stream_(std::exchange(other.stream_, nullptr)),
      gate_(std::exchange(other.gate_, nullptr)),
      device_(other.device_) {}

DeviceStream& DeviceStream::operator=(DeviceStream&& other) noexcept {
  std::swap(stream_, other.stream_);
  std::swap(gate_, other.gate_);
  std::swap(device_, other.device_);
  return *this;
}

DeviceStream::~DeviceStream() {
  if (stream_ != nullptr) (void)cudaStreamDestroy(static_cast<cudaStream_t>(stream_));
  if (gate_ != nullptr) (void)cudaFreeHost(gate_);
}

void DeviceStream::hold() const {
  const comm::peer::Driver driver = comm::peer::Driver::load();
  comm::peer::StreamBatch wait(driver, static_cast<cudaStream_t>(stream_));
  wait.consume(gate_, 1);
  wait.enqueue();
}

void DeviceStream::release() const { std::atomic_ref(*gate_).store(1, std::memory_order_release); }

DeviceTimer::DeviceTimer(int device) {
  const DeviceScope scope(device);
  CudaEvent begin = make_event(true);
  CudaEvent end = make_event(true);
  begin_ = begin.release();
  end_ = end.release();
}

DeviceTimer::DeviceTimer(DeviceTimer&& other) noexcept
    : begin_(std::exchange(other.begin_, nullptr)), end_(std::exchange(other.end_, nullptr)) {}

DeviceTimer& DeviceTimer::operator=(DeviceTimer&& other) noexcept {
  std::swap(begin_, other.begin_);
  std::swap(end_, other.end_);
  return *this;
}

DeviceTimer::~DeviceTimer() {
  for (void* event : {begin_, end_}) {
    if (event != nullptr) (void)cudaEventDestroy(static_cast<cudaEvent_t>(event));
  }
}

void DeviceTimer::begin(const DeviceStream& stream) const {
  const DeviceScope scope(stream.device());
  check_cuda(cudaEventRecord(static_cast<cudaEvent_t>(begin_), stream_of(stream)),
             "cudaEventRecord");
}

void DeviceTimer::end(const DeviceStream& stream) const {
  const DeviceScope scope(stream.device());
  check_cuda(cudaEventRecord(static_cast<cudaEvent_t>(end_), stream_of(stream)), "cudaEventRecord");
}

double DeviceTimer::seconds() const {
  float ms = 0;
  check_cuda(
      cudaEventElapsedTime(&ms, static_cast<cudaEvent_t>(begin_), static_cast<cudaEvent_t>(end_)),
      "cudaEventElapsedTime");
  return ms * 1e-3;
}

DeviceGraph::DeviceGraph(const DeviceStream& stream, const std::function<void()>& calls) {
  const DeviceScope scope(stream.device());
  check_cuda(cudaStreamBeginCapture(stream_of(stream), cudaStreamCaptureModeThreadLocal),
             "cudaStreamBeginCapture");
  std::exception_ptr error;
  try {
    calls();
  } catch (...) {
    error = std::current_exception();
  }
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream_of(stream), &graph);
  if (error) std::rethrow_exception(error);
  check_cuda(ended, "cudaStreamEndCapture");
  cudaGraphExec_t ready = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&ready, graph, 0);
  (void)cudaGraphDestroy(graph);
  check_cuda(made, "cudaGraphInstantiate");
  ready_ = ready;
  check_cuda(cudaGraphUpload(ready, stream_of(stream)), "cudaGraphUpload");
}

DeviceGraph::~DeviceGraph() {
  if (ready_ != nullptr) (void)cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(ready_));
}

void DeviceGraph::launch(const DeviceStream& stream) const {
  const DeviceScope scope(stream.device());
  check_cuda(cudaGraphLaunch(static_cast<cudaGraphExec_t>(ready_), stream_of(stream)),
             "cudaGraphLaunch");
}

int device_count() {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  (void)cudaGetLastError();
  return code == cudaSuccess ? count : 0;
}

std::int64_t device_memory_used(int device) {
  const DeviceScope scope(device);
  std::size_t free = 0;
  std::size_t total = 0;
  check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return static_cast<std::int64_t>(total - free);
}

std::string device_name(int device) {
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  return properties.name;
}

DeviceSize device_size(int device) {
  const auto attribute = [&](cudaDeviceAttr which) {
    int value = 0;
    check_cuda(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
    return value;
  };
  return {.multiprocessors = attribute(cudaDevAttrMultiProcessorCount),
          .clock_hz = 1e3 * attribute(cudaDevAttrClockRate),
          .major = attribute(cudaDevAttrComputeCapabilityMajor),
          .minor = attribute(cudaDevAttrComputeCapabilityMinor)};
}

}  // namespace annulus
