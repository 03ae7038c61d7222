#pragma once

#include "launch/error.h"
#include "launch/options/keys.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace annulus::launch {

/// Who gave a value. A later one wins over an earlier one.
enum class Origin : std::uint8_t { preset, model, environment, file, command_line };

/// One value and where it came from.
struct Setting {
  std::string text;
  Origin origin = Origin::preset;
  std::string where;             ///< as typed: "--seq", "FILE:LINE: seq", "ANNULUS_SEQ"
  std::filesystem::path folder;  ///< what a relative path in it is relative to; empty: here
};

/// The values of one run, checked one by one when they are set; what cannot go together is found
/// where it is used. Getters throw UsageError for a key that is needed and was not given.
class Settings {
 public:
  Settings();

  /// Takes the value unless one of a higher origin is there. Throws UsageError.
  void set(std::string_view name, Setting setting);

  /// By anyone but the table of defaults.
  bool given(std::string_view name) const;
  bool has(std::string_view name) const;

  std::int64_t integer(std::string_view name) const;
  double real(std::string_view name) const;
  bool flag(std::string_view name) const;
  const std::string& text(std::string_view name) const;
  std::vector<std::string> words(std::string_view name) const;  ///< of a `choices` key
  std::filesystem::path path(std::string_view name) const;      ///< resolved; "-" stays "-"
  /// A relative path inside the value of `name`, such as documents = @FILE.
  std::filesystem::path beside(std::string_view name, const std::string& path) const;

  std::optional<std::int64_t> maybe_integer(std::string_view name) const;

  /// The option as it was typed, or as it would be on the command line.
  std::string where(std::string_view name) const;
  /// "default", "model", "env", "file" or "command line"
  std::string_view source(std::string_view name) const;

  /// Throws UsageError "WHERE: 'VALUE' WHY".
  [[noreturn]] void refuse(std::string_view name, std::string_view why) const;

 private:
  const Setting& get(std::string_view name) const;

  std::map<std::string, Setting, std::less<>> values_;
};

}  // namespace annulus::launch
