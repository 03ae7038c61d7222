#pragma once

#include <annulus/error.h>

#include <fmt/format.h>

#include <chrono>
#include <future>
#include <string_view>
#include <thread>
#include <utility>

namespace annulus::comm::nccl {

/// Runs `work` in a thread and waits `limit_s` for it; throws what it throws, or Timeout. A thread
/// that is late is left to itself, so `work` must own all that it uses.
template <typename Work>
void within(double limit_s, std::string_view what, Work work) {
  std::packaged_task<void()> task(std::move(work));
  std::future<void> ended = task.get_future();
  std::thread(std::move(task)).detach();
  // An infinite limit must not overflow the clock.
  const double limit = limit_s < 1e6 ? limit_s : 1e6;
  if (ended.wait_for(std::chrono::duration<double>(limit)) != std::future_status::ready) {
    throw Timeout(fmt::format("{} did not end in {:.1f} s", what, limit));
  }
  ended.get();
}

}  // namespace annulus::comm::nccl
