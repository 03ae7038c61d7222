#pragma once

#include <chrono>

namespace annulus::comm {

/// What one wait does when there is nothing to do: it yields, and naps when nothing came for a
/// while. It begins where it is made. Only who has nothing to compute may wait: polls from inside a
/// kernel return at once.
///
/// Measured with two ranks that compute and two that wait on 2 cores: waiting by sched_yield takes
/// 3 to 9 % of the work from those that compute, naps of 50 us take 18 to 27 % (their timers
/// preempt). So naps come late and are long, and no wait is prolonged by more than about 2 %.
class Backoff {
 public:
  /// Nothing to do now. Where messages are moved in pieces by the polls themselves, a nap between
  /// two pieces costs most of the rate (2.0 to 0.6 GB/s measured): then `may_nap` is false.
  void idle(bool may_nap = true);

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point since_ = Clock::now();
};

}  // namespace annulus::comm
