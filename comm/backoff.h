#pragma once

#include <chrono>

namespace annulus::comm {

/// What a poll loop does when there is nothing to do: it yields, and sleeps when nothing came for a
/// while. A caller that computes between its polls is not held up.
class Backoff {
 public:
  /// `ranks_here`: ranks on this host. More of them than cores makes sleep come at once, since
  /// ranks that spin keep those that work from running.
  explicit Backoff(int ranks_here);

  /// Nothing to do now.
  void idle();
  /// Something happened: be quick again.
  void active() { fresh_ = true; }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::duration patience_;
  Clock::time_point idle_since_{};
  Clock::time_point last_{};
  bool fresh_ = true;
};

}  // namespace annulus::comm
