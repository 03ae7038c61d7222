#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace annulus::launch {

/// One line on a terminal's standard error, for work that takes over two seconds; else silent.
class Progress {
 public:
  Progress(std::string title, std::int64_t steps, bool speaks);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();  ///< wipes the line

  void step(std::string_view what = {});

 private:
  std::string title_;
  std::int64_t steps_;
  std::int64_t done_ = 0;
  bool speaks_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point last_{};
};

}  // namespace annulus::launch
