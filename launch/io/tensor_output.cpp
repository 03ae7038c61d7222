#include "launch/io/tensor_output.h"

#include "launch/error.h"
#include "launch/io/npy.h"
#include "launch/io/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace annulus::launch {
namespace {

[[noreturn]] void refuse(const OutputTensor& output, std::string_view why) {
  throw UsageError(
      fmt::format("{}: '{}' cannot be written: {}", output.where, output.path.file.string(), why));
}

/// One spelling for each place: a.npy, ./a.npy and a link to it.
std::filesystem::path place_of(const std::filesystem::path& path) {
  std::error_code error;
  const auto place = std::filesystem::weakly_canonical(std::filesystem::absolute(path), error);
  return error ? path : place;
}

void check_place(const OutputTensor& output, const std::filesystem::path& place) {
  std::error_code error;
  const auto status = std::filesystem::status(place, error);
  if (std::filesystem::is_directory(status)) refuse(output, "it is a folder");
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    refuse(output, "it is no regular file");
  }
  const auto folder = place.has_parent_path() ? place.parent_path() : std::filesystem::path(".");
  if (!std::filesystem::is_directory(folder, error)) refuse(output, "its folder does not exist");
}

void write_all(int handle, std::int64_t offset, std::span<const std::byte> data,
               const std::filesystem::path& place) {
  while (!data.empty()) {
    const ssize_t n = pwrite(handle, data.data(), data.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      throw std::runtime_error(
          fmt::format("{}: writing failed: {}", place.string(), std::strerror(errno)));
    }
    offset += n;
    data = data.subspan(static_cast<std::size_t>(n));
  }
}

}  // namespace

TensorOutputs::TensorOutputs(std::vector<OutputTensor> outputs)
    : outputs_(std::move(outputs)), file_of_(outputs_.size(), outputs_.size()) {
  try {
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      if (file_of_[i] == outputs_.size()) open_file(i);
    }
  } catch (...) {
    close_all();
    throw;
  }
}

TensorOutputs::~TensorOutputs() { close_all(); }

void TensorOutputs::open_file(std::size_t first) {
  const OutputTensor& head = outputs_[first];
  const std::filesystem::path place = place_of(head.path.file);
  check_place(head, place);
  std::vector<std::size_t> members;
  std::vector<std::pair<std::string, StoredTensor>> tensors;
  for (std::size_t i = first; i < outputs_.size(); ++i) {
    const OutputTensor& output = outputs_[i];
    if (place_of(output.path.file) != place) continue;
    const bool twice =
        std::ranges::any_of(tensors, [&](const auto& t) { return t.first == output.path.name; });
    if (twice) refuse(output, fmt::format("{} goes there under the same name", head.where));
    if (output.path.is_npy() && output.tensor.dtype == DType::bf16) {
      refuse(output, ".npy has no bf16; allowed: FILE.safetensors");
    }
    if (output.path.name == "__metadata__") refuse(output, "__metadata__ is no tensor's name");
    members.push_back(i);
    tensors.emplace_back(output.path.name, output.tensor);
    file_of_[i] = files_.size();
  }
  std::string header;
  if (head.path.is_npy()) {
    header = npy_header(tensors.front().second);
    tensors.front().second.offset = static_cast<std::int64_t>(header.size());
  } else {
    header = safetensors_header(tensors);
  }
  for (std::size_t m = 0; m < members.size(); ++m) outputs_[members[m]].tensor = tensors[m].second;

  File file{.place = place, .beside = place, .handle = -1};
  file.beside += fmt::format(".{}.part", getpid());
  file.handle = open(file.beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file.handle < 0) refuse(head, std::strerror(errno));
  files_.push_back(file);
  const std::int64_t size = tensors.back().second.offset + tensors.back().second.bytes();
  // A full disk is found before anything is computed, where the file system can tell.
  if (fallocate(file.handle, 0, 0, std::max<std::int64_t>(size, 1)) != 0 && errno == ENOSPC) {
    refuse(head, fmt::format("{} bytes do not fit the disk", size));
  }
  if (ftruncate(file.handle, size) != 0) refuse(head, std::strerror(errno));
  write_all(file.handle, 0, std::as_bytes(std::span(header)), place);
}

void TensorOutputs::write(std::size_t index, std::int64_t begin, std::span<const std::byte> data) {
  const File& file = files_.at(file_of_.at(index));
  write_all(file.handle, outputs_[index].tensor.offset + begin, data, file.place);
}

void TensorOutputs::commit() {
  for (File& file : files_) {
    if (close(std::exchange(file.handle, -1)) != 0) {
      throw std::runtime_error(
          fmt::format("{}: writing failed: {}", file.place.string(), std::strerror(errno)));
    }
  }
  for (File& file : files_) {
    std::filesystem::rename(file.beside, file.place);
    file.beside.clear();
  }
}

void TensorOutputs::close_all() noexcept {
  for (File& file : files_) {
    if (file.handle >= 0) close(file.handle);
    std::error_code ignored;
    if (!file.beside.empty()) std::filesystem::remove(file.beside, ignored);
  }
  files_.clear();
}

}  // namespace annulus::launch
