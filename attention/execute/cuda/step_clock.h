#pragma once

#include "attention/execute/step_notes.h"
#include "attention/execute/step_samples.h"
#include "runtime/base/cuda_handles.h"

#include <cuda_runtime_api.h>

#include <cstddef>
#include <vector>

namespace annulus::attn {

/// Events that are timed, around the launches of one schedule and around the whole call. Enqueues
/// only; read when the streams have passed them.
class StepClock {
 public:
  /// On the current device.
  explicit StepClock(std::vector<StepNote> notes);

  void begin_call(cudaStream_t stream) const { record(first_.get(), stream); }
  void end_call(cudaStream_t stream) const { record(last_.get(), stream); }
  /// `step`: the first of a launch.
  void begin(std::size_t step, cudaStream_t stream) const { record(begin_[step].get(), stream); }
  void end(std::size_t step, cudaStream_t stream) const { record(end_[step].get(), stream); }

  cudaEvent_t first() const { return first_.get(); }
  cudaEvent_t last() const { return last_.get(); }

  /// After first(), by step; those of one launch share its time; of steps that do nothing 0.
  std::vector<StepTime> times() const;
  double call_s() const;

 private:
  static void record(cudaEvent_t event, cudaStream_t stream);

  std::vector<StepNote> notes_;
  std::vector<CudaEvent> begin_, end_;  ///< by step; null where another one's serves
  CudaEvent first_, last_;
};

/// Where an event of the past lies on the host's steady clock.
struct HostTime {
  double at_s = 0;
  double error_s = 0;
};

/// From new events on `idle`, a stream with nothing in it, that the host sees pass: the quickest
/// counts. Waits for them; throws DeviceError after timeout_s.
HostTime place_on_host(cudaEvent_t past, cudaStream_t idle, double timeout_s);

}  // namespace annulus::attn
