#pragma once

#include "comm/communicator.h"
#include "comm/peer/driver.h"
#include "comm/peer/mapped_memory.h"
#include "runtime/base/device_buffer.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace annulus::comm::peer {

/// Memory on each rank's GPU that the ranks beside it can address: in one process by cuMemCreate
/// (or peer access, for a caller's memory), between processes by CUDA IPC, which exports whole
/// cudaMalloc allocations. Collective to make; own memory is freed when every rank has dropped it.
class SymmetricMemory {
 public:
  /// `bytes` of this rank, allocated here, or the caller's `arena` if it is not empty, on `device`.
  /// Ranks with the same `host` are tried. Throws DeviceError, on every rank alike, when one of
  /// them has no memory.
  SymmetricMemory(Communicator& communicator, const Driver& driver, std::string_view host,
                  int device, std::int64_t bytes, std::span<std::byte> arena = {});
  SymmetricMemory(const SymmetricMemory&) = delete;
  SymmetricMemory& operator=(const SymmetricMemory&) = delete;
  ~SymmetricMemory();

  int device() const { return device_; }
  int world() const { return static_cast<int>(bases_.size()); }
  std::int64_t bytes() const { return bytes_; }
  std::byte* local() const { return of(rank_); }
  /// Rank r's memory as this rank's GPU addresses it; null where it cannot.
  std::byte* of(int rank) const { return bases_[static_cast<std::size_t>(rank)]; }
  /// `owner`'s memory is cudaMalloc's, on another GPU of `reader`'s process: the driver orders
  /// copies that read it, but not those that write it, behind what `owner`'s streams hold
  /// (docs/notes/05-gpu-measurements.md). Those may wait for the reader.
  bool is_ordered(int owner, int reader) const;
  /// Every rank is on a GPU of its own.
  bool own_gpus() const { return own_gpus_; }
  /// Why of(rank) is null.
  const std::string& why_not(int rank) const { return why_not_[static_cast<std::size_t>(rank)]; }

 private:
  struct Place {
    std::int64_t process = 0;
    int device = 0;
    bool mapped = false;  ///< cuMemCreate
  };

  void close() noexcept;

  Communicator& communicator_;
  int rank_;
  int device_;
  std::int64_t bytes_;
  DeviceBuffer own_;
  std::unique_ptr<MappedMemory>
      shared_;                 ///< instead, where threads of one process use several GPUs
  std::vector<Place> places_;  ///< by rank
  bool own_gpus_ = true;
  std::vector<std::byte*> bases_;
  std::vector<void*> mapped_;  ///< opened through IPC; null: not
  std::vector<std::string> why_not_;
};

}  // namespace annulus::comm::peer
