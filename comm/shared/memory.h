#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

namespace annulus::comm::shared {

/// How another process of this host finds a memory; no bytes: there is none.
struct MemoryName {
  std::int64_t bytes = 0;
  std::int64_t pid = 0;
  std::int64_t descriptor = -1;
  std::uint64_t inode = 0;
};

/// Memory that processes of one host map together (memfd_create(2)): no file, no name that could
/// stay behind, no limit of /dev/shm. Pages that nobody touches cost nothing. The memory lives as
/// long as one process maps it.
class SharedMemory {
 public:
  /// Zeros. Empty where the system gives none.
  static std::optional<SharedMemory> create(std::int64_t bytes) noexcept;
  /// Another process's, through /proc. Empty where this process may not, or where it is not the
  /// memory of that name: then the two are not on one host, whatever their names say.
  static std::optional<SharedMemory> open(const MemoryName& name) noexcept;

  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&& other) noexcept;
  ~SharedMemory();

  std::byte* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }
  /// Valid until hide().
  MemoryName name() const;
  /// Nobody can open it from now on; who has opened it keeps it.
  void hide() noexcept;

  /// Takes the pages that hold [low, high) out of this process's resident memory; their content
  /// stays. So a rank that reads another's memory does not count it as its own.
  void step_back(const std::byte* low, const std::byte* high) const noexcept;

 private:
  SharedMemory() = default;
  void reset() noexcept;
  bool map() noexcept;

  std::byte* data_ = nullptr;
  std::int64_t bytes_ = 0;
  int descriptor_ = -1;
};

}  // namespace annulus::comm::shared
