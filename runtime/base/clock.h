#pragma once

#include <chrono>

namespace annulus {

/// Of the steady clock: CLOCK_MONOTONIC, the same for all processes of a machine.
inline double monotonic_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Point in time after which a wait gives up. Measured on the steady clock, so that a change of the
/// wall clock neither ends nor prolongs a wait.
class Deadline {
 public:
  /// `limit_s` may be infinite: then it never expires.
  explicit Deadline(double limit_s) : limit_s_(limit_s) {}

  double limit_s() const { return limit_s_; }
  double elapsed_s() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  /// Never below 0.
  double remaining_s() const {
    const double left = limit_s_ - elapsed_s();
    return left > 0.0 ? left : 0.0;
  }
  bool expired() const { return elapsed_s() >= limit_s_; }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  double limit_s_;
};

}  // namespace annulus
