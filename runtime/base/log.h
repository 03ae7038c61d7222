#pragma once

#include <annulus/log.h>

#include <fmt/core.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace annulus {

struct LogIdentity {
  int rank = 0;
  int world = 1;
  std::string host{};
};

/// Log of one rank; safe from several threads. spdlog stays behind it, and its default logger is
/// not touched, so that an embedding program keeps its own.
class Logger {
 public:
  /// Throws InvalidArgument for a level out of range or a log file that cannot be opened.
  Logger(const LogOptions& options, const LogIdentity& identity);
  ~Logger();
  Logger(Logger&&) noexcept;
  Logger& operator=(Logger&&) noexcept;

  void log(LogLevel level, std::string_view text) const;

  /// Lines below the level are formatted all the same: dump_recent shows them.
  template <class... Args>
  void debug(fmt::format_string<Args...> format, Args&&... args) const {
    log(LogLevel::debug, fmt::format(format, std::forward<Args>(args)...));
  }
  template <class... Args>
  void info(fmt::format_string<Args...> format, Args&&... args) const {
    log(LogLevel::info, fmt::format(format, std::forward<Args>(args)...));
  }
  template <class... Args>
  void warn(fmt::format_string<Args...> format, Args&&... args) const {
    log(LogLevel::warn, fmt::format(format, std::forward<Args>(args)...));
  }
  template <class... Args>
  void error(fmt::format_string<Args...> format, Args&&... args) const {
    log(LogLevel::error, fmt::format(format, std::forward<Args>(args)...));
  }

  LogLevel level() const;

  /// After a failure: the last 200 lines of any level go to standard error or the caller's sink,
  /// whatever its level. The file, if any, has them already.
  void dump_recent() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace annulus
