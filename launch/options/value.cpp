#include "launch/options/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace annulus::launch {
namespace {

bool is_allowed(const Key& key, std::string_view word) {
  const std::vector<std::string> words = split(key.allowed, '|');
  return !key.allowed.empty() && std::ranges::find(words, word) != words.end();
}

bool fits(const Key& key, std::string_view text) {
  std::int64_t integer = 0;
  double real = 0;
  bool flag = false;
  switch (key.type) {
    case ValueType::integer:
      return read_integer(text, integer) && integer >= key.min && integer <= key.max;
    case ValueType::real:
      if (is_allowed(key, text)) return true;
      return read_real(text, real) && real > 0 &&
             (key.max == 0 || real <= static_cast<double>(key.max));
    case ValueType::boolean:
      return read_boolean(text, flag);
    case ValueType::choice:
      return is_allowed(key, text);
    case ValueType::choices:
      return std::ranges::all_of(split(text, '+'),
                                 [&](const std::string& word) { return is_allowed(key, word); });
    case ValueType::path:
    case ValueType::text:
      // A value is forgotten: `--json --seq 4`.
      return !text.starts_with("--");
  }
  return false;
}

std::string short_number(std::int64_t n) {
  constexpr std::array<std::pair<int, char>, 3> kUnits{{{30, 'G'}, {20, 'M'}, {10, 'k'}}};
  for (const auto& [shift, letter] : kUnits) {
    if (n >= (std::int64_t{1} << shift) && n % (std::int64_t{1} << shift) == 0) {
      return fmt::format("{}{}", n >> shift, letter);
    }
  }
  return fmt::format("{}", n);
}

}  // namespace

bool read_integer(std::string_view text, std::int64_t& value) {
  int shift = 0;
  if (!text.empty()) {
    const char last = text.back();
    if (last == 'k' || last == 'K') shift = 10;
    if (last == 'M') shift = 20;
    if (last == 'G') shift = 30;
  }
  if (shift != 0) text.remove_suffix(1);
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size()) return false;
  return !__builtin_mul_overflow(number, std::int64_t{1} << shift, &value);
}

bool read_real(std::string_view text, double& value) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size()) return false;
  if (!std::isfinite(number)) return false;
  value = number;
  return true;
}

bool read_boolean(std::string_view text, bool& value) {
  constexpr std::array<std::string_view, 4> kTrue{"true", "yes", "on", "1"};
  constexpr std::array<std::string_view, 4> kFalse{"false", "no", "off", "0"};
  value = std::ranges::find(kTrue, text) != kTrue.end();
  return value || std::ranges::find(kFalse, text) != kFalse.end();
}

std::string trim(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(kBlank) - begin + 1));
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (true) {
    const std::size_t end = text.find(separator);
    parts.push_back(trim(text.substr(0, end)));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::string allowed_values(const Key& key) {
  switch (key.type) {
    case ValueType::integer:
      return fmt::format("a whole number from {} to {} (k, M, G are powers of two)", key.min,
                         short_number(key.max));
    case ValueType::real:
      return fmt::format("a number above 0{}{}{}",
                         key.max > 0 ? fmt::format(", at most {}", key.max) : "",
                         key.allowed.empty() ? "" : ", or ", key.allowed);
    case ValueType::boolean:
      return "true or false";
    case ValueType::choice:
      return fmt::format("one of {}", fmt::join(split(key.allowed, '|'), ", "));
    case ValueType::choices:
      return fmt::format("some of {}, joined by +", fmt::join(split(key.allowed, '|'), ", "));
    case ValueType::path:
      return "a path";
    case ValueType::text:
      return "a value";
  }
  return {};
}

std::string why_not(const Key& key, std::string_view text) {
  if (trim(text).empty())
    return fmt::format("the value is empty; allowed: {}", allowed_values(key));
  if (fits(key, text)) return {};
  const bool scalar = key.type != ValueType::path && key.type != ValueType::text;
  const std::vector<std::string> parts = split(text, ',');
  if (scalar && parts.size() > 1 &&
      std::ranges::all_of(parts, [&](const std::string& part) { return fits(key, part); })) {
    return fmt::format("'{}' is a list of {}; a grid of runs is not built yet, give one value",
                       text, parts.size());
  }
  return fmt::format("'{}' is not allowed; allowed: {}", text, allowed_values(key));
}

}  // namespace annulus::launch
