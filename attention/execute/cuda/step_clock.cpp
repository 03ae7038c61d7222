#include "attention/execute/cuda/step_clock.h"

#include "runtime/base/clock.h"
#include "runtime/base/cuda_check.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <cstdint>
#include <utility>

namespace annulus::attn {
namespace {

constexpr int kProbes = 20;

/// cudaEventElapsedTime has a resolution of about 0.5 us.
double seconds_between(cudaEvent_t from, cudaEvent_t to) {
  float ms = 0;
  check_cuda(cudaEventElapsedTime(&ms, from, to), "cudaEventElapsedTime");
  return static_cast<double>(ms) * 1e-3;
}

/// The host's time when it sees the event. It spins: sleeping would add to the error.
double seen_s(cudaEvent_t event, double timeout_s) {
  const Deadline deadline(timeout_s);
  for (;;) {
    const cudaError_t code = cudaEventQuery(event);
    const double now = monotonic_s();
    if (code == cudaSuccess) return now;
    if (code != cudaErrorNotReady) check_cuda(code, "cudaEventQuery");
    if (deadline.expired()) {
      throw DeviceError(fmt::format("an event of an idle stream did not pass in {} s", timeout_s));
    }
  }
}

}  // namespace

StepClock::StepClock(std::vector<StepNote> notes)
    : notes_(std::move(notes)),
      begin_(notes_.size()),
      end_(notes_.size()),
      first_(make_event(true)),
      last_(make_event(true)) {
  for (std::size_t s = 0; s < notes_.size(); ++s) {
    if (notes_[s].of != static_cast<std::int32_t>(s)) continue;
    if (notes_[s].after == StepNote::kNone) begin_[s] = make_event(true);
    end_[s] = make_event(true);
  }
}

void StepClock::record(cudaEvent_t event, cudaStream_t stream) {
  if (event != nullptr) check_cuda(cudaEventRecord(event, stream), "cudaEventRecord");
}

std::vector<StepTime> StepClock::times() const {
  const auto at = [](std::int32_t step) { return static_cast<std::size_t>(step); };
  std::vector<StepTime> times(notes_.size());
  for (std::size_t s = 0; s < times.size(); ++s) {
    const StepNote& note = notes_[s];
    if (note.of == StepNote::kNone) continue;
    const CudaEvent& begin =
        note.after == StepNote::kNone ? begin_[at(note.of)] : end_[at(note.after)];
    times[s] = {seconds_between(first_.get(), begin.get()),
                seconds_between(first_.get(), end_[at(note.of)].get())};
  }
  return times;
}

double StepClock::call_s() const { return seconds_between(first_.get(), last_.get()); }

HostTime place_on_host(cudaEvent_t past, cudaStream_t idle, double timeout_s) {
  const CudaEvent now = make_event(true);
  HostTime best;
  for (int i = 0; i < kProbes; ++i) {
    const double before = monotonic_s();
    check_cuda(cudaEventRecord(now.get(), idle), "cudaEventRecord");
    const double after = seen_s(now.get(), timeout_s);
    const double error = (after - before) / 2;
    if (i > 0 && error >= best.error_s) continue;
    best = {(before + after) / 2 - seconds_between(past, now.get()), error};
  }
  return best;
}

}  // namespace annulus::attn
