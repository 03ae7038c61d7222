#include "launch/options/settings.h"

#include "launch/options/value.h"

#include <fmt/format.h>

namespace annulus::launch {

Settings::Settings() {
  for (const Key& key : keys()) {
    if (key.preset.empty()) continue;
    values_.emplace(key.name, Setting{.text = std::string(key.preset),
                                      .origin = Origin::preset,
                                      .where = option_of(key.name),
                                      .folder = {}});
  }
}

void Settings::set(std::string_view name, Setting setting) {
  const Key* key = find_key(name);
  if (key == nullptr) throw UsageError(fmt::format("{}: unknown key", setting.where));
  if (const std::string why = why_not(*key, setting.text); !why.empty()) {
    throw UsageError(fmt::format("{}: {}", setting.where, why));
  }
  const auto old = values_.find(name);
  if (old != values_.end() && old->second.origin > setting.origin) return;
  values_.insert_or_assign(std::string(name), std::move(setting));
}

bool Settings::has(std::string_view name) const { return values_.contains(name); }

bool Settings::given(std::string_view name) const {
  const auto found = values_.find(name);
  return found != values_.end() && found->second.origin != Origin::preset;
}

const Setting& Settings::get(std::string_view name) const {
  const auto found = values_.find(name);
  if (found == values_.end()) {
    const Key* key = find_key(name);
    throw UsageError(fmt::format("{}: required, {}", option_of(name),
                                 key == nullptr ? "" : allowed_values(*key)));
  }
  return found->second;
}

std::int64_t Settings::integer(std::string_view name) const {
  std::int64_t value = 0;
  if (!read_integer(get(name).text, value)) refuse(name, "is no whole number");
  return value;
}

std::optional<std::int64_t> Settings::maybe_integer(std::string_view name) const {
  if (!has(name)) return std::nullopt;
  return integer(name);
}

double Settings::real(std::string_view name) const {
  double value = 0;
  if (!read_real(get(name).text, value)) refuse(name, "is no number");
  return value;
}

bool Settings::flag(std::string_view name) const {
  bool value = false;
  if (!read_boolean(get(name).text, value)) refuse(name, "is neither true nor false");
  return value;
}

const std::string& Settings::text(std::string_view name) const { return get(name).text; }

std::vector<std::string> Settings::words(std::string_view name) const {
  return split(get(name).text, '+');
}

std::filesystem::path Settings::path(std::string_view name) const {
  const std::string& text = get(name).text;
  return text == "-" ? std::filesystem::path(text) : beside(name, text);
}

std::filesystem::path Settings::beside(std::string_view name, const std::string& path) const {
  const std::filesystem::path& folder = get(name).folder;
  return folder.empty() ? std::filesystem::path(path) : folder / path;  // absolute paths win
}

std::string Settings::where(std::string_view name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? option_of(name) : found->second.where;
}

std::string_view Settings::source(std::string_view name) const {
  const auto found = values_.find(name);
  if (found == values_.end()) return "default";
  switch (found->second.origin) {
    case Origin::preset:
      return "default";
    case Origin::model:
      return "model";
    case Origin::environment:
      return "env";
    case Origin::file:
      return "file";
    case Origin::command_line:
      return "command line";
  }
  return "default";
}

void Settings::refuse(std::string_view name, std::string_view why) const {
  const auto found = values_.find(name);
  if (found == values_.end()) throw UsageError(fmt::format("{}: {}", option_of(name), why));
  throw UsageError(fmt::format("{}: '{}' {}", found->second.where, found->second.text, why));
}

}  // namespace annulus::launch
