#include "comm/shared/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <string_view>
#include <utility>

namespace annulus::comm::shared {
namespace {

constexpr const char* kLabel = "annulus";
constexpr std::string_view kLink = "/memfd:annulus";

using Path = std::array<char, 64>;

Path path_of(const MemoryName& name) {
  Path path{};
  std::snprintf(path.data(), path.size(), "/proc/%lld/fd/%lld", static_cast<long long>(name.pid),
                static_cast<long long>(name.descriptor));
  return path;
}

/// Looked at before it is opened: opening something else might block or change it.
bool is_ours(const Path& path) {
  std::array<char, 64> target{};
  const ssize_t length = readlink(path.data(), target.data(), target.size());
  return length > 0 &&
         std::string_view(target.data(), static_cast<std::size_t>(length)).starts_with(kLink);
}

}  // namespace

std::optional<SharedMemory> SharedMemory::create(std::int64_t bytes) noexcept {
  SharedMemory memory;
  memory.bytes_ = bytes;
  memory.descriptor_ = memfd_create(kLabel, MFD_CLOEXEC);
  if (memory.descriptor_ < 0 || ftruncate(memory.descriptor_, bytes) != 0 || !memory.map()) {
    return std::nullopt;
  }
  return memory;
}

std::optional<SharedMemory> SharedMemory::open(const MemoryName& name) noexcept {
  const Path path = path_of(name);
  if (!is_ours(path)) return std::nullopt;
  SharedMemory memory;
  memory.bytes_ = name.bytes;
  memory.descriptor_ = ::open(path.data(), O_RDWR | O_CLOEXEC | O_NONBLOCK);
  struct stat info {};
  const bool same = memory.descriptor_ >= 0 && fstat(memory.descriptor_, &info) == 0 &&
                    info.st_ino == name.inode && info.st_size == name.bytes;
  if (!same || !memory.map()) return std::nullopt;
  memory.hide();
  return memory;
}

bool SharedMemory::map() noexcept {
  void* at = mmap(nullptr, static_cast<std::size_t>(bytes_), PROT_READ | PROT_WRITE, MAP_SHARED,
                  descriptor_, 0);
  if (at == MAP_FAILED) return false;
  data_ = static_cast<std::byte*>(at);
  return true;
}

MemoryName SharedMemory::name() const {
  struct stat info {};
  if (descriptor_ < 0 || fstat(descriptor_, &info) != 0) return {};
  return {bytes_, getpid(), descriptor_, info.st_ino};
}

void SharedMemory::hide() noexcept {
  if (descriptor_ >= 0) close(descriptor_);
  descriptor_ = -1;
}

void SharedMemory::step_back(const std::byte* low, const std::byte* high) const noexcept {
  const auto page = static_cast<std::int64_t>(sysconf(_SC_PAGESIZE));
  const std::int64_t first = std::max<std::int64_t>(0, low - data_) / page * page;
  const std::int64_t last = std::min<std::int64_t>(bytes_, high - data_);
  if (first < last) madvise(data_ + first, static_cast<std::size_t>(last - first), MADV_DONTNEED);
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

SharedMemory& SharedMemory::operator=(SharedMemory&& other) noexcept {
  if (this == &other) return *this;
  reset();
  data_ = std::exchange(other.data_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  descriptor_ = std::exchange(other.descriptor_, -1);
  return *this;
}

SharedMemory::~SharedMemory() { reset(); }

void SharedMemory::reset() noexcept {
  hide();
  if (data_ != nullptr) munmap(data_, static_cast<std::size_t>(bytes_));
  data_ = nullptr;
}

}  // namespace annulus::comm::shared
