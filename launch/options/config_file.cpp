#include "launch/options/sources.h"
#include "launch/options/value.h"

#include <boost/program_options.hpp>
#include <fmt/format.h>

#include <fstream>
#include <map>
#include <sstream>

namespace annulus::launch {
namespace {

namespace po = boost::program_options;

struct Line {
  std::string file;  ///< as typed
  int number = 0;
  std::string text;  ///< without comment and blanks around

  std::string at() const { return fmt::format("{}:{}", file, number); }
};

struct Entry {
  std::string key;
  std::string value;
};

std::string read_section(const Line& line) {
  if (line.text.back() != ']') {
    throw UsageError(fmt::format("{}: '{}' is cut off; allowed: [section]", line.at(), line.text));
  }
  const std::string name = line.text.substr(1, line.text.size() - 2);
  if (!is_section(name)) {
    throw UsageError(fmt::format(
        "{}: '[{}]' is no section; allowed: [problem], [parallel], [run], [report], [cost]",
        line.at(), name));
  }
  return name;
}

/// Boost's INI reader knows no line numbers, so each line is handed to it alone.
Entry read_entry(const Line& line) {
  std::istringstream stream(line.text);
  const po::options_description any;
  try {
    const po::parsed_options parsed = po::parse_config_file(stream, any, true);
    if (parsed.options.size() == 1 && !parsed.options.front().value.empty()) {
      return {parsed.options.front().string_key, parsed.options.front().value.front()};
    }
  } catch (const po::error&) {
    // The message below says what a line must be.
  }
  throw UsageError(
      fmt::format("{}: '{}' is not allowed; allowed: [section], key = value, # comment", line.at(),
                  line.text.substr(0, 60)));
}

[[noreturn]] void refuse_key(const Line& line, const std::string& section,
                             const std::string& name) {
  if (const Key* key = find_key(name); key != nullptr) {
    throw UsageError(fmt::format("{}: {}: belongs to [{}], not to {}", line.at(), name,
                                 key->section,
                                 section.empty() ? "no section" : "[" + section + "]"));
  }
  std::vector<std::string> known;
  for (const Key& key : keys()) known.emplace_back(key.name);
  const std::string meant = nearest(name, known);
  throw UsageError(fmt::format("{}: {}: unknown key{}", line.at(), name,
                               meant.empty() ? "; annulus bench --help lists all"
                                             : fmt::format("; did you mean {}?", meant)));
}

void check_file(const std::filesystem::path& file) {
  std::error_code error;
  const auto status = std::filesystem::status(file, error);
  if (!std::filesystem::exists(status)) {
    throw UsageError(fmt::format("--config: '{}' does not exist", file.string()));
  }
  if (!std::filesystem::is_regular_file(status)) {
    throw UsageError(fmt::format("--config: '{}' is not a regular file", file.string()));
  }
}

}  // namespace

void read_config_file(const std::filesystem::path& file, Settings& settings) {
  check_file(file);
  std::ifstream stream(file);
  if (!stream) throw UsageError(fmt::format("--config: '{}' cannot be read", file.string()));
  // Of `./x.cfg` and `x.cfg` alike; "." rather than empty, which would mean "as it stands".
  const auto folder = file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
  std::map<std::string, int> seen;
  std::string section;
  Line line{.file = file.string(), .number = 0, .text = {}};
  for (std::string text; std::getline(stream, text);) {
    ++line.number;
    line.text = trim(text.substr(0, text.find('#')));
    if (line.text.empty()) continue;
    if (line.text.front() == '[') {
      section = read_section(line);
      continue;
    }
    const Entry entry = read_entry(line);
    const Key* key = find_key(entry.key);
    if (key == nullptr || key->section != section) refuse_key(line, section, entry.key);
    const auto [first, fresh] = seen.emplace(entry.key, line.number);
    if (!fresh) {
      throw UsageError(
          fmt::format("{}: {}: given before, in line {}", line.at(), entry.key, first->second));
    }
    settings.set(entry.key, {.text = entry.value,
                             .origin = Origin::file,
                             .where = fmt::format("{}: {}", line.at(), entry.key),
                             .folder = folder});
  }
  if (seen.empty()) throw UsageError(fmt::format("--config: '{}' holds no key", file.string()));
}

}  // namespace annulus::launch
