#pragma once

#include "tests/gpu/device_kernel.h"
#include "tests/gpu/timed_shapes.h"

#include <cstddef>
#include <memory>
#include <vector>

// Launches that are timed side by side.
namespace annulus::testing {

/// A stream of its own: launches overlap there, and the legacy one has rules beside.
struct TestStream {
  TestStream();
  ~TestStream();
  TestStream(const TestStream&) = delete;
  TestStream& operator=(const TestStream&) = delete;
  cudaStream_t stream = nullptr;
};

/// Milliseconds of launches on one stream.
class LaunchTimes {
 public:
  LaunchTimes();
  ~LaunchTimes();
  LaunchTimes(const LaunchTimes&) = delete;
  LaunchTimes& operator=(const LaunchTimes&) = delete;

  template <typename Launch>
  void time(cudaStream_t stream, const Launch& launch) {
    mark(begin_, stream);
    launch();
    mark(end_, stream);
  }
  /// The last one, which is over.
  void note();
  double median_ms() const { return median(ms_); }
  const std::vector<float>& ms() const { return ms_; }  ///< of those noted, in order

 private:
  static void mark(cudaEvent_t event, cudaStream_t stream);
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  std::vector<float> ms_;
};

/// Of things with launch(), launch_timed() and note(). A round launches each once, beginning with
/// another each time, behind a launch that does not count: the host is ahead of the device when the
/// first that counts begins.
template <typename Timed>
void time_interleaved(const std::vector<std::unique_ptr<Timed>>& timed, int warm_up, int rounds) {
  for (int round = -warm_up; round < rounds; ++round) {
    timed.front()->launch();
    for (std::size_t i = 0; i < timed.size(); ++i) {
      timed[(i + static_cast<std::size_t>(round + warm_up)) % timed.size()]->launch_timed();
    }
    check_cuda(cudaDeviceSynchronize(), "timed launches");
    for (const auto& t : timed) {
      if (round >= 0) t->note();
    }
  }
}

}  // namespace annulus::testing
