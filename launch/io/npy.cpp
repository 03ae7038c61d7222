#include "launch/io/npy.h"

#include "launch/error.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

namespace annulus::launch {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::int64_t kPrefix = 8;  ///< magic and version
constexpr std::int64_t kLongestHeader = 64 * 1024;
constexpr std::size_t kMostDims = 32;  // NumPy's own
constexpr std::size_t kAlignment = 64;

/// What the dict of a header says.
struct Described {
  std::optional<std::string> descr;
  std::optional<bool> fortran;
  std::optional<std::vector<std::int64_t>> shape;
};

/// Reads the one dict that NumPy writes: a Python literal, of which we know no more than we need.
class DictReader {
 public:
  explicit DictReader(std::string_view text) : text_(text) {}

  /// False for anything that is not that dict, whole.
  bool read(Described& out) {
    if (!take('{')) return false;
    while (!take('}')) {
      std::string key;
      if (!read_string(key) || !take(':') || !read_value(key, out)) return false;
      if (!take(',')) {
        if (!take('}')) return false;
        break;
      }
    }
    skip_blanks();
    return text_.empty() && out.descr && out.fortran && out.shape;
  }

 private:
  void skip_blanks() {
    const std::size_t n = text_.find_first_not_of(" \t\r\n");
    text_.remove_prefix(std::min(n, text_.size()));
  }

  bool take(char c) {
    skip_blanks();
    if (!text_.starts_with(c)) return false;
    text_.remove_prefix(1);
    return true;
  }

  bool take_word(std::string_view word) {
    skip_blanks();
    if (!text_.starts_with(word)) return false;
    text_.remove_prefix(word.size());
    return true;
  }

  bool read_string(std::string& out) {
    skip_blanks();
    if (text_.empty() || (text_[0] != '\'' && text_[0] != '"')) return false;
    const std::size_t end = text_.find(text_[0], 1);
    if (end == std::string_view::npos) return false;
    out = text_.substr(1, end - 1);
    text_.remove_prefix(end + 1);
    return out.find('\\') == std::string::npos;
  }

  bool read_value(const std::string& key, Described& out) {
    if (key == "descr" && !out.descr) {
      skip_blanks();
      // A list describes records: kept as it begins, for the message.
      if (text_.starts_with('[')) {
        out.descr = "[...]";
        const std::size_t end = text_.rfind(']');
        if (end == std::string_view::npos) return false;
        text_.remove_prefix(end + 1);
        return true;
      }
      return read_string(out.descr.emplace());
    }
    if (key == "fortran_order" && !out.fortran) {
      if (take_word("True")) return out.fortran.emplace(true);
      return take_word("False") && !out.fortran.emplace(false);
    }
    return key == "shape" && !out.shape && read_tuple(out.shape.emplace());
  }

  bool read_tuple(std::vector<std::int64_t>& out) {
    if (!take('(')) return false;
    while (!take(')')) {
      skip_blanks();
      std::int64_t n = 0;
      const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), n);
      if (error != std::errc{} || n < 0 || out.size() == kMostDims) return false;
      text_.remove_prefix(static_cast<std::size_t>(end - text_.data()));
      out.push_back(n);
      if (take(',')) continue;
      return out.size() > 1 && take(')');  // (5) is no tuple
    }
    return true;
  }

  std::string_view text_;
};

std::string read_text(const InputFile& file, std::int64_t offset, std::int64_t size) {
  std::string text(static_cast<std::size_t>(size), '\0');
  file.read(offset, std::as_writable_bytes(std::span(text)));
  return text;
}

DType dtype_of(const InputFile& file, const std::string& descr) {
  if (descr == "<f4") return DType::f32;
  if (descr == "<f2") return DType::f16;
  const char* why = descr.starts_with('>') ? "is big-endian" : "is of another dtype";
  file.refuse(fmt::format("{}: '{}'; allowed: '<f4' (f32), '<f2' (f16); bf16 comes in .safetensors",
                          why, descr.substr(0, 20)));
}

/// Where the header's text begins and ends.
struct Extent {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

Extent find_header(const InputFile& file) {
  if (file.size() < kPrefix + 2) file.refuse(fmt::format("is cut off: {} bytes", file.size()));
  const std::string prefix = read_text(file, 0, kPrefix);
  if (!prefix.starts_with(kMagic)) file.refuse("is no .npy file: it lacks the magic \\x93NUMPY");
  const int major = prefix[6];
  if (major < 1 || major > 3 || prefix[7] != 0) {
    file.refuse(fmt::format("has format version {}.{}; allowed: 1.0, 2.0, 3.0", major,
                            static_cast<int>(prefix[7])));
  }
  const std::int64_t width = major == 1 ? 2 : 4;
  if (file.size() < kPrefix + width) file.refuse("is cut off in its header");
  std::int64_t length = 0;
  const std::string digits = read_text(file, kPrefix, width);
  for (std::size_t i = digits.size(); i-- > 0;) {
    length = length * 256 + static_cast<unsigned char>(digits[i]);
  }
  if (length > kLongestHeader) {
    file.refuse(fmt::format("has a header of {} bytes; allowed: up to {}", length, kLongestHeader));
  }
  const std::int64_t begin = kPrefix + width;
  if (begin + length > file.size()) file.refuse("is cut off in its header");
  return {begin, begin + length};
}

}  // namespace

NpyArray read_npy_array(const InputFile& file) {
  const Extent extent = find_header(file);
  Described described;
  if (!DictReader(read_text(file, extent.begin, extent.end - extent.begin)).read(described)) {
    file.refuse("has a header that is not {'descr': ..., 'fortran_order': ..., 'shape': (...)}");
  }
  return {.descr = *described.descr,
          .fortran = *described.fortran && described.shape->size() > 1,
          .shape = *described.shape,
          .offset = extent.end};
}

void check_npy_data(const InputFile& file, const NpyArray& array, std::int64_t bytes,
                    std::string_view dtype) {
  if (array.fortran) {
    file.refuse("is in Fortran order; allowed: C order, as of numpy.ascontiguousarray");
  }
  const std::int64_t there = file.size() - array.offset;
  if (there < bytes) {
    file.refuse(fmt::format("is cut off: [{}] of {} needs {} bytes, {} are there",
                            fmt::join(array.shape, ","), dtype, bytes, there));
  }
  if (there > bytes) file.refuse(fmt::format("has {} bytes behind its data", there - bytes));
}

StoredTensor read_npy_header(const InputFile& file) {
  const NpyArray array = read_npy_array(file);
  StoredTensor tensor{
      .dtype = dtype_of(file, array.descr), .shape = array.shape, .offset = array.offset};
  if (!array.fortran && !countable(tensor)) {
    file.refuse(fmt::format("has the shape [{}], too large to be", fmt::join(array.shape, ",")));
  }
  check_npy_data(file, array, array.fortran ? 0 : tensor.bytes(), name_of(tensor.dtype));
  return tensor;
}

std::string npy_header(const StoredTensor& tensor) {
  return npy_header(tensor.dtype == DType::f32 ? "<f4" : "<f2", tensor.shape);
}

std::string npy_header(std::string_view descr, const std::vector<std::int64_t>& shape) {
  std::string dims;
  for (const std::int64_t n : shape) dims += fmt::format("{}, ", n);
  if (shape.size() > 1) dims.resize(dims.size() - 2);
  if (shape.size() == 1) dims.resize(dims.size() - 1);
  std::string dict =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", descr, dims);
  const std::size_t before = kMagic.size() + 4;
  dict.append(kAlignment - (before + dict.size() + 1) % kAlignment, ' ');
  dict += '\n';
  std::string header(kMagic);
  header += {'\x01', '\x00', static_cast<char>(dict.size() & 0xffU),
             static_cast<char>(dict.size() >> 8U)};
  return header + dict;
}

}  // namespace annulus::launch
