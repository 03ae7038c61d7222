#include "moe/device.h"
#include "runtime/base/cuda_check.h"
#include "runtime/base/cuda_handles.h"
#include "runtime/base/device_buffer.h"
#include "runtime/base/kernel_entries.h"

#include <cuda_runtime_api.h>

namespace annulus::moe {
namespace {

std::shared_ptr<void> allocate(std::int64_t bytes) {
  const auto buffer = std::make_shared<DeviceBuffer>(bytes);
  return {buffer, buffer->data()};
}

void read(void* host, const void* device, std::int64_t bytes, void* stream) {
  auto* on = static_cast<cudaStream_t>(stream);
  check_cuda(
      cudaMemcpyAsync(host, device, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToHost, on),
      "download");
  check_cuda(cudaStreamSynchronize(on), "MoE kernels");
}

void write(void* device, const void* host, std::int64_t bytes, void* stream) {
  // From pageable memory: it is staged when the call returns.
  check_cuda(cudaMemcpyAsync(device, host, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice,
                             static_cast<cudaStream_t>(stream)),
             "upload");
}

void wait(void* stream) {
  check_cuda(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)), "MoE kernels");
}

void follow(void* stream, void* other) {
  const CudaEvent event = make_event(false);  // freed when it has passed
  check_cuda(cudaEventRecord(event.get(), static_cast<cudaStream_t>(other)), "cudaEventRecord");
  check_cuda(cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), event.get(), 0),
             "cudaStreamWaitEvent");
}

struct Held {
  std::shared_ptr<void> library;
  CudaStream travel;
};

void clear(void* device, std::int64_t bytes, void* stream) {
  check_cuda(cudaMemsetAsync(device, 0, static_cast<std::size_t>(bytes),
                             static_cast<cudaStream_t>(stream)),
             "cudaMemset");
}

}  // namespace

Device gpu_device(void* stream) {
  load_kernels(cuda::entries());
  Device device{.kernel = &kernel("cuda"),
                .route = cuda::route,
                .route_backward = cuda::route_backward,
                .count_losses = cuda::count_losses,
                .add_losses = cuda::add_losses,
                .drop_pairs = cuda::drop_pairs,
                .jitter = cuda::jitter,
                .update_bias = cuda::update_bias,
                .count_pairs = cuda::count_pairs,
                .place_pairs = cuda::place_pairs,
                .scatter = cuda::scatter,
                .combine = cuda::combine,
                .fetch = cuda::fetch,
                .pull = cuda::pull,
                .split = cuda::split,
                .allocate = allocate,
                .read = read,
                .write = write,
                .wait = wait,
                .follow = follow,
                .clear = clear};
  const auto held = std::make_shared<Held>();
  held->library = device.kernel->open();
  held->travel = make_urgent_stream();
  device.library = held;
  device.travel = held->travel.get();
  device.context.stream = stream;
  device.context.library = held->library.get();
  return device;
}

}  // namespace annulus::moe
