#include <annulus/cost.h>
#include <annulus/error.h>

#include <fmt/format.h>

#include <charconv>
#include <optional>

namespace annulus {
namespace {

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

/// Digits, then k or M or nothing; nullopt for everything else, signs and overflow included.
std::optional<std::int64_t> parse_length(std::string_view text) {
  std::int64_t unit = 1;
  if (!text.empty() && (text.back() == 'k' || text.back() == 'M')) {
    unit = text.back() == 'k' ? 1024 : 1024 * 1024;
    text.remove_suffix(1);
  }
  if (text.empty() || text.front() == '-') return std::nullopt;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (__builtin_mul_overflow(value, unit, &value)) return std::nullopt;
  return value;
}

/// All of `count` lengths between separators, or nullopt.
std::optional<std::vector<std::int64_t>> parse_lengths(std::string_view text, char separator,
                                                       std::size_t count) {
  const std::vector<std::string_view> parts = split(text, separator);
  if (parts.size() != count) return std::nullopt;
  std::vector<std::int64_t> values;
  for (const std::string_view part : parts) {
    const std::optional<std::int64_t> value = parse_length(part);
    if (!value) return std::nullopt;
    values.push_back(*value);
  }
  return values;
}

std::optional<DecodeEntry> parse_decode_entry(std::string_view text) {
  DecodeEntry entry;
  if (const auto kv = parse_length(text)) {
    entry.kv = *kv;
    return entry;
  }
  if (const auto run = parse_lengths(text, 'x', 2)) {
    if (run->at(0) < 1) return std::nullopt;
    entry.count = run->at(0);
    entry.kv = run->at(1);
    return entry;
  }
  const auto tuple = parse_lengths(text, '/', 4);
  if (!tuple || tuple->at(0) < 1 || tuple->at(1) < 1) return std::nullopt;
  entry.beams = true;
  entry.prompt_batch = tuple->at(0);
  entry.decode_batch = tuple->at(1);
  entry.prompt = tuple->at(2);
  entry.generated = tuple->at(3);
  return entry;
}

}  // namespace

std::vector<PrefillChunk> parse_chunks(std::string_view text) {
  std::vector<PrefillChunk> chunks;
  if (trimmed(text).empty()) return chunks;
  for (const std::string_view part : split(text, ',')) {
    const auto lengths = parse_lengths(trimmed(part), ':', 2);
    if (!lengths) {
      throw InvalidArgument(fmt::format(
          "chunk '{}': must be past:new with whole numbers of 0 or above, such as 0:300 or 2k:212",
          trimmed(part)));
    }
    chunks.push_back({.past = lengths->at(0), .fresh = lengths->at(1)});
  }
  return chunks;
}

std::vector<DecodeEntry> parse_decode_entries(std::string_view text) {
  std::vector<DecodeEntry> entries;
  if (trimmed(text).empty()) return entries;
  for (const std::string_view part : split(text, ',')) {
    const std::optional<DecodeEntry> entry = parse_decode_entry(trimmed(part));
    if (!entry) {
      throw InvalidArgument(fmt::format(
          "decode entry '{}': must be a key count (80), requests x keys (4x2048) or prompt_batch/"
          "decode_batch/prompt/generated (1/4/1000/37), counts of requests from 1",
          trimmed(part)));
    }
    entries.push_back(*entry);
  }
  return entries;
}

}  // namespace annulus
