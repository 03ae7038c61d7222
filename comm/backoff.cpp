#include "comm/backoff.h"

#include <sched.h>

#include <algorithm>
#include <thread>

namespace annulus::comm {

using namespace std::chrono_literals;

namespace {

constexpr auto kPatience = 2ms;    // before the first nap
constexpr auto kLongestNap = 1ms;  // also bounds how late an abort is seen
constexpr auto kWorkGap = 100us;   // polls further apart than this: the caller computes in between

}  // namespace

void Backoff::idle(bool may_nap) {
  const auto now = Clock::now();
  if (fresh_ || now - last_ > kWorkGap) {
    fresh_ = false;
    idle_since_ = now;
    last_ = now;
    return;
  }
  const auto waited = now - idle_since_;
  if (!may_nap || waited < kPatience) {
    sched_yield();
  } else {
    std::this_thread::sleep_for(std::min<Clock::duration>(waited / 50, kLongestNap));
  }
  last_ = Clock::now();
}

}  // namespace annulus::comm
