#pragma once

#include "comm/peer/driver.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace annulus::comm::peer {

/// Memory on one GPU that several GPUs of this process address at the same place (cuMemCreate). For
/// ranks that are threads: pulls from another GPU's cudaMalloc memory are ordered by the driver
/// against that GPU's streams (docs/notes/05-gpu-measurements.md), these are not. CUDA IPC cannot
/// export it.
class MappedMemory {
 public:
  MappedMemory() = default;
  /// `devices`: who may read and write, `device` included.
  MappedMemory(const Driver& driver, int device, std::int64_t bytes,
               const std::vector<int>& devices);
  MappedMemory(const MappedMemory&) = delete;
  MappedMemory& operator=(const MappedMemory&) = delete;
  ~MappedMemory();

  std::byte* data() const { return reinterpret_cast<std::byte*>(address_); }
  /// Gives the memory up without freeing it.
  void leak() noexcept { address_ = 0; }

 private:
  Driver driver_;
  CUdeviceptr address_ = 0;
  std::size_t size_ = 0;
  CUmemGenericAllocationHandle handle_ = 0;
};

}  // namespace annulus::comm::peer
