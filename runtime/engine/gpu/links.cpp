#include "runtime/engine/gpu/device.h"
#include "runtime/engine/gpu/kernels.h"
#include "runtime/engine/gpu/probes.h"

#include <algorithm>
#include <functional>

namespace annulus::engine {
namespace {

constexpr std::int64_t kMiB = std::int64_t{1} << 20;
constexpr std::int64_t kLargest = 64 * kMiB;
constexpr int kRepeats = 9;

/// Seconds on the device from when the first of `enqueue`'s work may start until the last is done;
/// all of it is queued before. Median of kRepeats after one for warming up.
double seconds_of(int device, double timeout_s, const std::function<void(cudaStream_t)>& enqueue) {
  const OnDevice on(device);
  SharedWords release(1);
  const Stream stream = make_stream();
  const Event begin = make_event();
  const Event end = make_event();
  std::vector<double> times;
  for (int i = 0; i <= kRepeats; ++i) {
    release.write(0, 0);
    launch_gate(release.data(), timeout_s, stream.get());
    check_cuda(cudaEventRecord(begin.get(), stream.get()), "cudaEventRecord");
    enqueue(stream.get());
    check_cuda(cudaEventRecord(end.get(), stream.get()), "cudaEventRecord");
    release.write(0, 1);
    await_event(end, timeout_s, "a copy");
    float ms = 0;
    check_cuda(cudaEventElapsedTime(&ms, begin.get(), end.get()), "cudaEventElapsedTime");
    if (i > 0) times.push_back(static_cast<double>(ms) * 1e-3);
  }
  std::nth_element(times.begin(), times.begin() + kRepeats / 2, times.end());
  return times[kRepeats / 2];
}

/// A source on one GPU and a destination on another (or the same).
struct Ends {
  Ends(int to, int from) : source(from, to, kLargest), destination(to, from, kLargest) {}

  /// One after another over the buffers, from their start again where they end.
  void copy(cudaStream_t stream, std::int64_t bytes, int copies) const {
    std::int64_t at = 0;
    for (int i = 0; i < copies; ++i) {
      if (at + bytes > kLargest) at = 0;
      check_cuda(cudaMemcpyAsync(destination.data() + at, source.data() + at,
                                 static_cast<std::size_t>(bytes), cudaMemcpyDeviceToDevice, stream),
                 "cudaMemcpyAsync");
      at += bytes;
    }
  }

  SharedDeviceMemory source, destination;
};

}  // namespace

GpuLink measure_link(int to, int from, double timeout_s) {
  const Ends ends(to, from);
  GpuLink link{.to = to, .from = from, .rates = {}};
  for (const std::int64_t mib : {1, 4, 16, 64}) {
    const std::int64_t bytes = mib * kMiB;
    const auto rate = [&](int issuer) {
      const double seconds =
          seconds_of(issuer, timeout_s, [&](cudaStream_t stream) { ends.copy(stream, bytes, 1); });
      return static_cast<double>(bytes) * 1e-9 / seconds;
    };
    link.rates.push_back({.bytes = bytes, .pull_gb_s = rate(to), .push_gb_s = rate(from)});
  }
  return link;
}

std::vector<CopySample> measure_queued_copies(int to, int from, double timeout_s) {
  constexpr int kCopies = 7;
  const Ends ends(to, from);
  std::vector<CopySample> samples;
  for (const std::int64_t kib : {64, 256, 512, 1024, 4096}) {
    CopySample sample{.bytes = kib * 1024, .copies = kCopies};
    sample.seconds = seconds_of(
        to, timeout_s, [&](cudaStream_t stream) { ends.copy(stream, sample.bytes, kCopies); });
    samples.push_back(sample);
  }
  return samples;
}

}  // namespace annulus::engine
