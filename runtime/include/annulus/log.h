#pragma once

#include <annulus/export.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace annulus {

enum class LogLevel : std::uint8_t { debug, info, warn, error, off };

/// Receives every line that passes the level, already formatted as "[rank/world host] text".
/// May be called from several threads at once.
using LogSink = std::function<void(LogLevel, std::string_view)>;

/// Where log lines of one mesh go. Default: standard error, rank 0 from info, others from warn.
struct LogOptions {
  LogSink sink{};     ///< replaces standard error when set
  int level = -1;     ///< a LogLevel, or -1: info on rank 0, warn on the others
  std::string dir{};  ///< when set, also a file per rank: DIR/rank-N.log, from debug
};

}  // namespace annulus
