#pragma once

#include <filesystem>
#include <string_view>

namespace annulus::launch {

/// A file that appears whole or not at all: written beside its place and renamed by commit(). The
/// constructor finds out whether it can be written, before any compute. "-" is standard output.
class OutputFile {
 public:
  /// Throws UsageError "WHERE: ...". An empty path: nothing is written.
  OutputFile(std::filesystem::path path, std::string_view where);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();  ///< removes what was not committed

  bool wanted() const { return !path_.empty(); }
  bool to_standard_output() const { return path_ == "-"; }
  const std::filesystem::path& path() const { return path_; }

  /// Throws std::runtime_error (disk full).
  void commit(std::string_view text);

 private:
  std::filesystem::path path_;
  std::filesystem::path beside_;
};

}  // namespace annulus::launch
