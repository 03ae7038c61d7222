#include "launch/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

namespace annulus::launch {

Progress::Progress(std::string title, std::int64_t steps, bool speaks)
    : title_(std::move(title)), steps_(steps), speaks_(speaks && isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (shown_) fmt::print(stderr, "\r\033[K");
}

void Progress::step(std::string_view what) {
  using namespace std::chrono_literals;
  ++done_;
  const auto now = std::chrono::steady_clock::now();
  if (!speaks_ || now - start_ < 2s || now - last_ < 100ms) return;
  last_ = now;
  shown_ = true;
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now - start_).count();
  fmt::print(stderr, "\r\033[K{} {}/{} {} {} s", title_, done_, steps_, what, seconds);
  std::fflush(stderr);
}

}  // namespace annulus::launch
