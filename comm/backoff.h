#pragma once

#include <chrono>

namespace annulus::comm {

/// What a poll loop does when there is nothing to do: it yields, and naps when nothing came for a
/// while. A caller that computes between its polls is not held up.
///
/// Measured with two ranks that compute and two that wait on 2 cores: waiting by sched_yield takes
/// 3 to 9 % of the work from those that compute, naps of 50 us take 18 to 27 % (their timers
/// preempt). So naps come late and are long, and no wait is prolonged by more than about 2 %.
class Backoff {
 public:
  /// Nothing to do now. Where messages are moved in pieces by the polls themselves, a nap between
  /// two pieces costs most of the rate (2.0 to 0.6 GB/s measured): then `may_nap` is false.
  void idle(bool may_nap = true);

  /// Something happened: be quick again.
  void active() { fresh_ = true; }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point idle_since_{};
  Clock::time_point last_{};
  bool fresh_ = true;
};

}  // namespace annulus::comm
