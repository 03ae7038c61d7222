#include "comm/backoff.h"

#include <sched.h>

#include <algorithm>
#include <thread>

namespace annulus::comm {

using namespace std::chrono_literals;

namespace {

constexpr auto kPatience = 2ms;    // before the first nap
constexpr auto kLongestNap = 1ms;  // also bounds how late an abort is seen

}  // namespace

void Backoff::idle(bool may_nap) {
  const auto waited = Clock::now() - since_;
  if (!may_nap || waited < kPatience) {
    sched_yield();
  } else {
    std::this_thread::sleep_for(std::min<Clock::duration>(waited / 50, kLongestNap));
  }
}

}  // namespace annulus::comm
