#include "launch/io/safetensors.h"

#include "launch/error.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <set>

namespace annulus::launch {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::int64_t kPrefix = 8;
constexpr std::int64_t kLongestHeader = std::int64_t{16} << 20;
constexpr std::size_t kDeepest = 3;  ///< file, tensor, list
constexpr std::size_t kMostDims = 32;
constexpr std::int64_t kAlignment = 8;

struct StoredType {
  std::string_view name;
  std::int64_t bytes;
};
constexpr std::array<StoredType, 17> kTypes{{{"BOOL", 1},
                                             {"U8", 1},
                                             {"I8", 1},
                                             {"F8_E4M3", 1},
                                             {"F8_E5M2", 1},
                                             {"F8_E8M0", 1},
                                             {"I16", 2},
                                             {"U16", 2},
                                             {"F16", 2},
                                             {"BF16", 2},
                                             {"I32", 4},
                                             {"U32", 4},
                                             {"F32", 4},
                                             {"F64", 8},
                                             {"I64", 8},
                                             {"U64", 8},
                                             {"C64", 8}}};

/// Says no to what a DOM would pass over: a name given twice, and nesting.
class Strict : public nlohmann::json_sax<json> {
 public:
  std::string why;

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return open(); }
  bool start_array(std::size_t) override { return open(); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (names_.back().insert(name).second) return true;
    why = fmt::format("names '{}' twice in its header", name.substr(0, 60));
    return false;
  }
  bool parse_error(std::size_t at, const std::string&, const json::exception&) override {
    why = fmt::format("has a header that is no JSON from its byte {} on", at);
    return false;
  }

 private:
  bool open() {
    names_.emplace_back();
    if (names_.size() <= kDeepest) return true;
    why = fmt::format("has a header nested deeper than {}", kDeepest);
    return false;
  }
  bool close() {
    names_.pop_back();
    return true;
  }

  std::vector<std::set<std::string>> names_;
};

/// One entry of a header, checked for itself.
struct Entry {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::int64_t begin = 0;  ///< of the data
  std::int64_t end = 0;
};

/// Whole numbers from 0 on; false for anything else.
bool read_numbers(const json& list, std::vector<std::int64_t>& out) {
  if (!list.is_array() || list.size() > kMostDims) return false;
  for (const json& number : list) {
    if (!number.is_number_unsigned() || number > std::int64_t{1} << 62) return false;
    out.push_back(number.get<std::int64_t>());
  }
  return true;
}

Entry read_entry(const InputFile& file, const std::string& name, const json& value) {
  const auto refuse = [&](const std::string& why) {
    file.refuse(fmt::format("has a broken tensor '{}': {}", name.substr(0, 60), why));
  };
  if (!value.is_object() || value.size() != 3 || !value.contains("dtype") ||
      !value.contains("shape") || !value.contains("data_offsets") || !value["dtype"].is_string()) {
    refuse("needs dtype, shape and data_offsets, and nothing else");
  }
  Entry entry{.name = name, .dtype = value["dtype"].get<std::string>(), .shape = {}};
  std::vector<std::int64_t> offsets;
  if (!read_numbers(value["shape"], entry.shape)) refuse("its shape is no list of whole numbers");
  if (!read_numbers(value["data_offsets"], offsets) || offsets.size() != 2) {
    refuse("its data_offsets are not two whole numbers");
  }
  entry.begin = offsets[0];
  entry.end = offsets[1];
  const auto* type = std::ranges::find(kTypes, entry.dtype, &StoredType::name);
  if (type == kTypes.end()) refuse(fmt::format("dtype '{}' is unknown", entry.dtype.substr(0, 20)));
  // Elements are counted as if f64 were the widest, which it is.
  const StoredTensor sized{.dtype = DType::f64, .shape = entry.shape};
  if (!countable(sized)) refuse("its shape is too large to be");
  if (entry.begin > entry.end || entry.end - entry.begin != sized.elements() * type->bytes) {
    refuse(fmt::format("[{}] of {} needs {} bytes, data_offsets {} to {} hold another number",
                       fmt::join(entry.shape, ","), entry.dtype, sized.elements() * type->bytes,
                       entry.begin, entry.end));
  }
  return entry;
}

/// The data is covered exactly once.
void check_cover(const InputFile& file, std::vector<Entry> entries, std::int64_t data_bytes) {
  std::ranges::sort(entries, {}, [](const Entry& e) { return std::pair(e.begin, e.end); });
  std::int64_t at = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != at) {
      file.refuse(fmt::format("has {} before tensor '{}', at byte {} of its data",
                              entry.begin < at ? "an overlap" : "a gap", entry.name.substr(0, 60),
                              std::min(entry.begin, at)));
    }
    at = entry.end;
  }
  if (at > data_bytes) {
    file.refuse(fmt::format("is cut off: its tensors need {} bytes, {} are there", at, data_bytes));
  }
  if (at < data_bytes) file.refuse(fmt::format("has {} bytes behind its data", data_bytes - at));
}

json read_header(const InputFile& file, std::int64_t& length) {
  if (file.size() < kPrefix) file.refuse(fmt::format("is cut off: {} bytes", file.size()));
  std::array<unsigned char, kPrefix> digits{};
  file.read(0, std::as_writable_bytes(std::span(digits)));
  std::uint64_t size = 0;
  for (std::size_t i = digits.size(); i-- > 0;) size = size << 8U | digits[i];
  if (size > static_cast<std::uint64_t>(kLongestHeader)) {
    file.refuse(fmt::format("has a header of {} bytes; allowed: up to {}", size, kLongestHeader));
  }
  length = static_cast<std::int64_t>(size);
  if (length > file.size() - kPrefix) file.refuse("is cut off in its header");
  std::string text(static_cast<std::size_t>(length), '\0');
  file.read(kPrefix, std::as_writable_bytes(std::span(text)));
  Strict strict;
  if (!text.starts_with('{') || !json::sax_parse(text, &strict)) {
    file.refuse(strict.why.empty() ? "has a header that is no JSON object" : strict.why);
  }
  return json::parse(text);
}

std::vector<Entry> read_entries(const InputFile& file, const json& header) {
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name != "__metadata__") {
      entries.push_back(read_entry(file, name, value));
      continue;
    }
    const bool texts = value.is_object() &&
                       std::ranges::all_of(value, [](const json& v) { return v.is_string(); });
    if (!texts) file.refuse("has __metadata__ that is no object of texts");
  }
  return entries;
}

std::string some_names(const std::vector<Entry>& entries) {
  constexpr std::size_t kMost = 8;
  std::vector<std::string> names;
  for (const Entry& entry : entries) names.push_back(entry.name.substr(0, 60));
  if (names.empty()) return "none";
  if (names.size() > kMost) names.resize(kMost);
  return fmt::format("{}{}", fmt::join(names, ", "), entries.size() > kMost ? ", ..." : "");
}

DType dtype_of(const InputFile& file, const Entry& entry) {
  if (entry.dtype == "F32") return DType::f32;
  if (entry.dtype == "F16") return DType::f16;
  if (entry.dtype == "BF16") return DType::bf16;
  file.refuse(fmt::format("holds '{}' as {}; allowed: F32, F16, BF16", entry.name, entry.dtype));
}

}  // namespace

StoredTensor read_safetensors_header(const InputFile& file, const std::string& name) {
  std::int64_t length = 0;
  const json header = read_header(file, length);
  const std::vector<Entry> entries = read_entries(file, header);
  const std::int64_t data = kPrefix + length;
  check_cover(file, entries, file.size() - data);
  const auto found = std::ranges::find(entries, name, &Entry::name);
  if (found == entries.end()) {
    file.refuse(fmt::format("has no tensor '{}'; it has: {}", name, some_names(entries)));
  }
  return {.dtype = dtype_of(file, *found), .shape = found->shape, .offset = data + found->begin};
}

std::string safetensors_header(std::vector<std::pair<std::string, StoredTensor>>& tensors) {
  ordered_json header = ordered_json::object();
  std::int64_t at = 0;
  for (auto& [name, tensor] : tensors) {
    constexpr std::array<const char*, 3> kNames{"F32", "F16", "BF16"};
    header[name] = {{"dtype", kNames.at(static_cast<std::size_t>(tensor.dtype))},
                    {"shape", tensor.shape},
                    {"data_offsets", {at, at + tensor.bytes()}}};
    tensor.offset = at;
    at += tensor.bytes();
  }
  std::string text = header.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  while ((static_cast<std::int64_t>(text.size()) + kPrefix) % kAlignment != 0) text += ' ';
  std::string prefix;
  for (std::size_t i = 0; i < 8; ++i) {
    prefix += static_cast<char>(static_cast<std::uint64_t>(text.size()) >> (8 * i) & 0xffU);
  }
  for (auto& [name, tensor] : tensors) {
    tensor.offset += kPrefix + static_cast<std::int64_t>(text.size());
  }
  return prefix + text;
}

}  // namespace annulus::launch
