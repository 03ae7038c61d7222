#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace annulus {

/// Calls body(thread, index) once for each index in [0, count), on `threads` threads of which the
/// caller is thread 0. Indices are handed out as threads become free: the result must not depend on
/// who takes which. Only thread 0 may throw; the others then stop at their next index. While the
/// caller has nothing left to do it calls `poll`. One thread: no thread is created.
template <typename Body>
void parallel_for(int threads, std::int64_t count, const std::function<void()>& poll, Body&& body) {
  std::atomic<std::int64_t> next{0};
  std::atomic<int> running{0};
  const auto work = [&](int thread) {
    for (std::int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) body(thread, i);
  };
  struct StopOthers {  // destroyed before `others` joins, also when the caller throws
    std::atomic<std::int64_t>& next;
    std::int64_t count;
    ~StopOthers() { next.store(count); }
  };
  std::vector<std::jthread> others;
  const StopOthers stop{next, count};
  for (int thread = 1; thread < threads && thread < count; ++thread) {
    running.fetch_add(1);
    others.emplace_back([&work, &running, thread] {
      work(thread);
      running.fetch_sub(1);
    });
  }
  work(0);
  while (running.load() > 0) {
    if (poll) poll();
    std::this_thread::yield();
  }
}

}  // namespace annulus
