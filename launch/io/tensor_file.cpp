#include "launch/io/tensor_file.h"

#include "launch/error.h"
#include "launch/io/npy.h"
#include "launch/io/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace annulus::launch {
namespace {

constexpr std::int64_t kMostBytes = std::int64_t{1} << 62;
constexpr std::size_t kMostAtOnce = std::size_t{1} << 30;  // read() stops a little below 2 GiB

}  // namespace

std::int64_t StoredTensor::elements() const {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

bool countable(const StoredTensor& tensor) {
  std::int64_t bytes = size_of(tensor.dtype);
  bool fits = true;
  for (const std::int64_t d : tensor.shape) {
    // A zero behind must not hide what overflowed before it.
    fits = fits && d >= 0 && (d == 0 || bytes <= kMostBytes / d);
    if (fits) bytes *= std::max<std::int64_t>(d, 1);
  }
  return fits;
}

TensorPath parse_tensor_path(const std::filesystem::path& path, std::string_view preset,
                             const std::string& where) {
  constexpr std::string_view kSafe = ".safetensors";
  const std::string text = path.string();
  if (text.ends_with(".npy")) return {.file = path, .name = {}};
  if (text.ends_with(kSafe)) return {.file = path, .name = std::string(preset)};
  const std::size_t colon = text.rfind(std::string(kSafe) + ":");
  if (colon == std::string::npos) {
    throw UsageError(fmt::format(
        "{}: '{}' is not allowed; allowed: FILE.npy, FILE.safetensors or FILE.safetensors:NAME",
        where, text));
  }
  const std::size_t end = colon + kSafe.size();
  if (end + 1 == text.size()) {
    throw UsageError(fmt::format("{}: '{}' names no tensor behind the colon", where, text));
  }
  return {.file = text.substr(0, end), .name = text.substr(end + 1)};
}

InputFile::InputFile(std::filesystem::path path, std::string where)
    : path_(std::move(path)), where_(std::move(where)) {
  std::error_code error;
  const auto status = std::filesystem::status(path_, error);
  if (!std::filesystem::exists(status)) refuse("does not exist");
  if (!std::filesystem::is_regular_file(status)) refuse("is not a regular file");
  handle_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (handle_ < 0) refuse(fmt::format("cannot be read: {}", std::strerror(errno)));
  struct stat info {};
  fstat(handle_, &info);
  size_ = info.st_size;
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)),
      where_(std::move(other.where_)),
      handle_(std::exchange(other.handle_, -1)),
      size_(other.size_) {}

InputFile::~InputFile() {
  if (handle_ >= 0) close(handle_);
}

void InputFile::read(std::int64_t offset, std::span<std::byte> into) const {
  while (!into.empty()) {
    const ssize_t n = pread(handle_, into.data(), std::min(into.size(), kMostAtOnce), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      throw std::runtime_error(fmt::format("{}: '{}': reading at byte {} failed: {}", where_,
                                           path_.string(), offset,
                                           n == 0 ? "the file ends there" : std::strerror(errno)));
    }
    offset += n;
    into = into.subspan(static_cast<std::size_t>(n));
  }
}

void InputFile::refuse(std::string_view why) const {
  throw UsageError(fmt::format("{}: '{}' {}", where_, path_.string(), why));
}

TensorReader::TensorReader(const TensorPath& path, const std::string& where)
    : file_(path.file, where),
      tensor_(path.is_npy() ? read_npy_header(file_) : read_safetensors_header(file_, path.name)) {}

void TensorReader::read(std::int64_t begin, std::span<std::byte> into) const {
  file_.read(tensor_.offset + begin, into);
}

}  // namespace annulus::launch
