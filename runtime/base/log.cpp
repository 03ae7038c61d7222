#include "runtime/base/log.h"

#include <annulus/error.h>

#include <spdlog/logger.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

namespace annulus {

namespace {

constexpr std::size_t kRecentLines = 200;

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warn:
      return spdlog::level::warn;
    case LogLevel::error:
      return spdlog::level::err;
    case LogLevel::off:
      return spdlog::level::off;
  }
  return spdlog::level::off;
}

LogLevel from_spdlog(spdlog::level::level_enum level) {
  if (level <= spdlog::level::debug) return LogLevel::debug;
  if (level == spdlog::level::info) return LogLevel::info;
  return level == spdlog::level::warn ? LogLevel::warn : LogLevel::error;
}

LogLevel choose_level(int level, int rank) {
  if (level == -1) return rank == 0 ? LogLevel::info : LogLevel::warn;
  if (level < 0 || level > static_cast<int>(LogLevel::off)) {
    throw InvalidArgument(
        fmt::format("log level {} is not between -1 (default) and 4 (off)", level));
  }
  return static_cast<LogLevel>(level);
}

/// Hands lines to the embedding program. Takes no lock: a sink may log again.
class CallerSink final : public spdlog::sinks::sink {
 public:
  CallerSink(LogSink to, std::string prefix) : to_(std::move(to)), prefix_(std::move(prefix)) {}

  void log(const spdlog::details::log_msg& message) override {
    std::string line = prefix_;
    line.append(message.payload.data(), message.payload.size());
    to_(from_spdlog(message.level), line);
  }
  void flush() override {}
  void set_pattern(const std::string&) override {}
  void set_formatter(std::unique_ptr<spdlog::formatter>) override {}

 private:
  LogSink to_;
  std::string prefix_;
};

std::string escape_pattern(std::string_view text) {
  std::string escaped;
  for (const char c : text) escaped.append(c == '%' ? 2 : 1, c);
  return escaped;
}

}  // namespace

struct Logger::Impl {
  std::shared_ptr<spdlog::sinks::sink> front;  // standard error or the caller's
  std::shared_ptr<spdlog::sinks::sink> file;   // may be null
  std::unique_ptr<spdlog::logger> logger;
  LogLevel level = LogLevel::info;

  void open_front(const LogOptions& options, const std::string& prefix) {
    if (options.sink) {
      front = std::make_shared<CallerSink>(options.sink, prefix);
    } else {
      front = std::make_shared<spdlog::sinks::stderr_sink_mt>();
      front->set_pattern(escape_pattern(prefix) + "%l: %v");
    }
    front->set_level(to_spdlog(level));
  }

  void open_file(const std::string& dir, int rank, const std::string& prefix) {
    const std::string path = fmt::format("{}/rank-{}.log", dir, rank);
    try {
      file = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path, /*truncate=*/true);
    } catch (const spdlog::spdlog_ex& error) {
      throw InvalidArgument(fmt::format("cannot write log file {}: {}", path, error.what()));
    }
    file->set_pattern("%Y-%m-%dT%H:%M:%S.%f " + escape_pattern(prefix) + "%l: %v");
    file->set_level(spdlog::level::debug);
  }
};

Logger::Logger(const LogOptions& options, const LogIdentity& identity)
    : impl_(std::make_unique<Impl>()) {
  const std::string prefix =
      fmt::format("[{}/{} {}] ", identity.rank, identity.world, identity.host);
  impl_->level = choose_level(options.level, identity.rank);
  impl_->open_front(options, prefix);
  std::vector<spdlog::sink_ptr> sinks{impl_->front};
  if (!options.dir.empty()) {
    impl_->open_file(options.dir, identity.rank, prefix);
    sinks.push_back(impl_->file);
  }
  impl_->logger = std::make_unique<spdlog::logger>("annulus", sinks.begin(), sinks.end());
  impl_->logger->set_level(spdlog::level::debug);  // each sink has its own level
  impl_->logger->enable_backtrace(kRecentLines);
  // Lines must be on disk when a rank is killed: the files are read after failures.
  impl_->logger->flush_on(spdlog::level::debug);
}

Logger::~Logger() = default;
Logger::Logger(Logger&&) noexcept = default;
Logger& Logger::operator=(Logger&&) noexcept = default;

void Logger::log(LogLevel level, std::string_view text) const {
  if (level == LogLevel::off) return;
  impl_->logger->log(to_spdlog(level), spdlog::string_view_t(text.data(), text.size()));
}

LogLevel Logger::level() const { return impl_->level; }

void Logger::dump_recent() const {
  if (impl_->level == LogLevel::off) return;
  // Sinks filter by level in a dump as well, so the levels are changed around it.
  impl_->front->set_level(spdlog::level::trace);
  if (impl_->file) impl_->file->set_level(spdlog::level::off);
  impl_->logger->dump_backtrace();
  impl_->front->set_level(to_spdlog(impl_->level));
  if (impl_->file) impl_->file->set_level(spdlog::level::debug);
}

}  // namespace annulus
