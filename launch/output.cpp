#include "launch/output.h"

#include "launch/error.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <utility>

namespace annulus::launch {

OutputFile::OutputFile(std::filesystem::path path, std::string_view where)
    : path_(std::move(path)) {
  if (path_.empty() || to_standard_output()) return;
  const auto refuse = [&](std::string_view why) {
    throw UsageError(fmt::format("{}: '{}' cannot be written: {}", where, path_.string(), why));
  };
  std::error_code error;
  const auto status = std::filesystem::status(path_, error);
  const auto folder = path_.has_parent_path() ? path_.parent_path() : std::filesystem::path(".");
  if (std::filesystem::is_directory(status)) refuse("it is a folder");
  if (!std::filesystem::is_directory(folder, error)) refuse("its folder does not exist");
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    return;  // /dev/null and pipes: nothing to rename
  }
  beside_ = path_;
  beside_ += fmt::format(".{}.part", getpid());
  if (!std::ofstream(beside_)) {
    beside_.clear();
    refuse("its folder is not writable");
  }
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)), beside_(std::move(other.beside_)) {
  other.path_.clear();
  other.beside_.clear();
}

OutputFile::~OutputFile() {
  std::error_code ignored;
  if (!beside_.empty()) std::filesystem::remove(beside_, ignored);
}

void OutputFile::commit(std::string_view text) {
  if (!wanted()) return;
  if (to_standard_output()) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    if (std::fflush(stdout) != 0) throw std::runtime_error("standard output cannot be written");
    return;
  }
  const std::filesystem::path& target = beside_.empty() ? path_ : beside_;
  std::ofstream stream(target, std::ios::binary);
  stream << text;
  stream.close();
  if (!stream) throw std::runtime_error(fmt::format("{}: writing failed", target.string()));
  if (beside_.empty()) return;
  std::filesystem::rename(beside_, path_);
  beside_.clear();
}

}  // namespace annulus::launch
