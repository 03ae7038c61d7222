#include "comm/shared/bell.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <ctime>

namespace annulus::comm::shared {

void Bell::wake() { syscall(SYS_futex, &rings_, FUTEX_WAKE, 1, nullptr, nullptr, 0); }

void Bell::sleep(std::uint32_t seen, std::chrono::microseconds longest) {
  timespec limit{};
  limit.tv_sec = longest.count() / 1'000'000;
  limit.tv_nsec = longest.count() % 1'000'000 * 1000;
  syscall(SYS_futex, &rings_, FUTEX_WAIT, seen, &limit, nullptr, 0);
}

}  // namespace annulus::comm::shared
