#include "comm/backoff.h"

#include <sched.h>
#include <unistd.h>

#include <thread>

namespace annulus::comm {

using namespace std::chrono_literals;

namespace {

constexpr auto kNap = 50us;
constexpr auto kWorkGap = 100us;  // polls further apart than this: the caller computes in between

}  // namespace

// Timers are late by about 50 us, so a nap is only worth it after a wait much longer than that,
// except where naps let other ranks run.
Backoff::Backoff(int ranks_here)
    : patience_(ranks_here > sysconf(_SC_NPROCESSORS_ONLN) ? Clock::duration(20us)
                                                           : Clock::duration(2ms)) {}

void Backoff::idle() {
  const auto now = Clock::now();
  if (fresh_ || now - last_ > kWorkGap) {
    fresh_ = false;
    idle_since_ = now;
    last_ = now;
    return;
  }
  if (now - idle_since_ < patience_) {
    sched_yield();
  } else {
    std::this_thread::sleep_for(kNap);
  }
  last_ = Clock::now();
}

}  // namespace annulus::comm
