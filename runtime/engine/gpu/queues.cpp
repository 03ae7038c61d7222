// How many streams may wait for a value before they hold up a kernel of another: streams share the
// device's hardware queues.
#include "runtime/engine/gpu/device.h"
#include "runtime/engine/gpu/kernels.h"
#include "runtime/engine/gpu/probes.h"

#include <annulus/error.h>

#include <cstdlib>
#include <vector>

namespace annulus::engine {
namespace {

constexpr int kMostStreams = 40;
constexpr double kPatience = 0.01;

/// Streams that wait for one word; all go on when it dies.
class WaitingStreams {
 public:
  explicit WaitingStreams(decltype(&::cuStreamWaitValue32) wait) : wait_(wait) {}
  ~WaitingStreams() { word_.write(0, 1); }
  WaitingStreams(const WaitingStreams&) = delete;
  WaitingStreams& operator=(const WaitingStreams&) = delete;

  void add(Stream stream) {
    const auto address = reinterpret_cast<CUdeviceptr>(word_.data());
    if (wait_(stream.get(), address, 1, CU_STREAM_WAIT_VALUE_GEQ) != CUDA_SUCCESS) {
      throw DeviceError("cuStreamWaitValue32 failed");
    }
    streams_.push_back(std::move(stream));
  }

  /// Lets them go on and awaits them.
  void release(double timeout_s) {
    word_.write(0, 1);
    for (const Stream& stream : streams_) {
      const Event event = make_event();
      check_cuda(cudaEventRecord(event.get(), stream.get()), "cudaEventRecord");
      await_event(event, timeout_s, "a stream that waited for a value");
    }
  }

 private:
  decltype(&::cuStreamWaitValue32) wait_;
  SharedWords word_{1};
  std::vector<Stream> streams_;
};

}  // namespace

QueueLimits measure_queues(double timeout_s) {
  const char* set = std::getenv("CUDA_DEVICE_MAX_CONNECTIONS");
  QueueLimits limits;
  limits.max_connections = set == nullptr ? "8 (default)" : set;
  const DriverFunctions& driver = driver_functions();
  if (driver.wait_value == nullptr) throw DeviceError("the driver has no cuStreamWaitValue32");
  const OnDevice on(0);
  SharedWords word(1);
  const Event event = make_event();
  {
    const Stream first = make_stream();  // loads the kernel
    launch_small(word.data(), first.get());
    check_cuda(cudaEventRecord(event.get(), first.get()), "cudaEventRecord");
    await_event(event, timeout_s, "a small kernel");
  }
  WaitingStreams waiting(driver.wait_value);
  for (; limits.waiting_streams < kMostStreams; ++limits.waiting_streams) {
    Stream next = make_stream();
    launch_small(word.data(), next.get());
    check_cuda(cudaEventRecord(event.get(), next.get()), "cudaEventRecord");
    limits.limited = !await(Deadline(kPatience), [&] { return finished(event); });
    if (limits.limited) {
      waiting.release(timeout_s);
      await_event(event, timeout_s, "a kernel behind waiting streams");
      return limits;
    }
    waiting.add(std::move(next));
  }
  waiting.release(timeout_s);
  return limits;
}

}  // namespace annulus::engine
