#pragma once

#include "runtime/base/clock.h"
#include "runtime/base/handle.h"

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace annulus::engine {

/// Throws DeviceError.
void check_cuda(cudaError_t status, const char* what);

struct StreamTraits {
  using Type = cudaStream_t;
  static Type null() { return nullptr; }
  static void close(Type stream) noexcept { cudaStreamDestroy(stream); }
};
using Stream = UniqueHandle<StreamTraits>;

struct EventTraits {
  using Type = cudaEvent_t;
  static Type null() { return nullptr; }
  static void close(Type event) noexcept { cudaEventDestroy(event); }
};
using Event = UniqueHandle<EventTraits>;

struct DeviceMemoryTraits {
  using Type = void*;
  static Type null() { return nullptr; }
  static void close(Type memory) noexcept { cudaFree(memory); }
};
using DeviceMemory = UniqueHandle<DeviceMemoryTraits>;

struct PinnedMemoryTraits {
  using Type = void*;
  static Type null() { return nullptr; }
  static void close(Type memory) noexcept { cudaFreeHost(memory); }
};
using PinnedMemory = UniqueHandle<PinnedMemoryTraits>;

/// Of the current device; streams do not wait for the default one.
Stream make_stream();
Event make_event();
DeviceMemory make_memory(std::size_t bytes);

/// The current device while it lives.
class OnDevice {
 public:
  explicit OnDevice(int device);
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  ~OnDevice() { cudaSetDevice(before_); }

 private:
  int before_ = 0;
};

/// Zeroed words of host memory that kernels and streams see at the same address.
class SharedWords {
 public:
  explicit SharedWords(std::size_t count);
  std::uint32_t* data() const { return words_; }
  std::uint32_t read(std::size_t i) const;
  void write(std::size_t i, std::uint32_t value);
  void fill(std::uint32_t value);
  std::size_t size() const { return count_; }

 private:
  PinnedMemory memory_;
  std::uint32_t* words_ = nullptr;
  std::size_t count_ = 0;
};

/// Is it done? Throws DeviceError.
bool finished(const Event& event);
/// Polls `done()` until it holds; false past the deadline.
template <typename Done>
bool await(const Deadline& deadline, Done&& done) {
  while (!done()) {
    if (deadline.expired()) return false;
  }
  return true;
}
/// Throws Timeout that names `what`.
void await_event(const Event& event, double timeout_s, const char* what);

/// Driver functions, asked for by name so that programs start without a driver. Null: not there.
struct DriverFunctions {
  decltype(&::cuStreamWriteValue32) write_value = nullptr;
  decltype(&::cuStreamWaitValue32) wait_value = nullptr;
  decltype(&::cuMemCreate) create = nullptr;
  decltype(&::cuMemRelease) release = nullptr;
  decltype(&::cuMemAddressReserve) reserve = nullptr;
  decltype(&::cuMemAddressFree) free_address = nullptr;
  decltype(&::cuMemMap) map = nullptr;
  decltype(&::cuMemUnmap) unmap = nullptr;
  decltype(&::cuMemSetAccess) set_access = nullptr;
};
const DriverFunctions& driver_functions();

/// Memory of GPU `owner` that GPU `user` may address too; a multiple of 2 MiB. Mapped like memory
/// that another process exports: copies from it cost what they cost between ranks. (A pull from
/// another GPU's cudaMalloc memory within one process costs 13 us instead of 4; seen on H200,
/// driver 580.)
class SharedDeviceMemory {
 public:
  /// Throws DeviceError.
  SharedDeviceMemory(int owner, int user, std::size_t bytes);
  SharedDeviceMemory(const SharedDeviceMemory&) = delete;
  SharedDeviceMemory& operator=(const SharedDeviceMemory&) = delete;
  ~SharedDeviceMemory() { close(); }

  std::byte* data() const { return reinterpret_cast<std::byte*>(address_); }

 private:
  void close() noexcept;

  std::size_t bytes_;
  CUmemGenericAllocationHandle memory_ = 0;
  CUdeviceptr address_ = 0;
  bool mapped_ = false;
};

}  // namespace annulus::engine
