#include "runtime/engine/gpu/device.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <array>
#include <atomic>

namespace annulus::engine {

void check_cuda(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    throw DeviceError(fmt::format("{}: {}", what, cudaGetErrorString(status)));
  }
}

Stream make_stream() {
  Stream stream;
  check_cuda(cudaStreamCreateWithFlags(stream.out(), cudaStreamNonBlocking), "cudaStreamCreate");
  return stream;
}

Event make_event() {
  Event event;
  check_cuda(cudaEventCreate(event.out()), "cudaEventCreate");
  return event;
}

DeviceMemory make_memory(std::size_t bytes) {
  DeviceMemory memory;
  check_cuda(cudaMalloc(memory.out(), bytes), "cudaMalloc");
  return memory;
}

OnDevice::OnDevice(int device) {
  check_cuda(cudaGetDevice(&before_), "cudaGetDevice");
  check_cuda(cudaSetDevice(device), "cudaSetDevice");
}

SharedWords::SharedWords(std::size_t count) : count_(count) {
  check_cuda(cudaHostAlloc(memory_.out(), count * sizeof(std::uint32_t),
                           cudaHostAllocPortable | cudaHostAllocMapped),
             "cudaHostAlloc");
  words_ = static_cast<std::uint32_t*>(memory_.get());
  fill(0);
}

std::uint32_t SharedWords::read(std::size_t i) const {
  return std::atomic_ref<std::uint32_t>(words_[i]).load();
}

void SharedWords::write(std::size_t i, std::uint32_t value) {
  std::atomic_ref<std::uint32_t>(words_[i]).store(value);
}

void SharedWords::fill(std::uint32_t value) {
  for (std::size_t i = 0; i < count_; ++i) write(i, value);
}

bool finished(const Event& event) {
  const cudaError_t status = cudaEventQuery(event.get());
  if (status == cudaErrorNotReady) return false;
  check_cuda(status, "cudaEventQuery");
  return true;
}

void await_event(const Event& event, double timeout_s, const char* what) {
  const Deadline deadline(timeout_s);
  if (await(deadline, [&] { return finished(event); })) return;
  throw Timeout(fmt::format("{} did not finish within {} s", what, timeout_s));
}

namespace {

template <typename Function>
void find_function(const char* name, Function& function) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result{};
  if (cudaGetDriverEntryPointByVersion(name, &found, CUDA_VERSION, cudaEnableDefault, &result) ==
          cudaSuccess &&
      result == cudaDriverEntryPointSuccess) {
    function = reinterpret_cast<Function>(found);
  }
}

}  // namespace

const DriverFunctions& driver_functions() {
  static const DriverFunctions functions = [] {
    DriverFunctions found;
    find_function("cuStreamWriteValue32", found.write_value);
    find_function("cuStreamWaitValue32", found.wait_value);
    find_function("cuMemCreate", found.create);
    find_function("cuMemRelease", found.release);
    find_function("cuMemAddressReserve", found.reserve);
    find_function("cuMemAddressFree", found.free_address);
    find_function("cuMemMap", found.map);
    find_function("cuMemUnmap", found.unmap);
    find_function("cuMemSetAccess", found.set_access);
    return found;
  }();
  return functions;
}

namespace {

void check_driver(CUresult status, const char* what) {
  if (status != CUDA_SUCCESS) throw DeviceError(fmt::format("{}: CUDA error {}", what, +status));
}

}  // namespace

SharedDeviceMemory::SharedDeviceMemory(int owner, int user, std::size_t bytes) : bytes_(bytes) {
  const DriverFunctions& f = driver_functions();
  if (f.create == nullptr || f.release == nullptr || f.reserve == nullptr ||
      f.free_address == nullptr || f.map == nullptr || f.unmap == nullptr ||
      f.set_access == nullptr) {
    throw DeviceError("the driver has no cuMemCreate and what belongs to it");
  }
  const OnDevice make_context_of_owner(owner);
  const OnDevice make_context_of_user(user);
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = owner};
  std::array<CUmemAccessDesc, 2> access{};
  access[0] = {.location = properties.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  access[1] = access[0];
  access[1].location.id = user;
  try {
    check_driver(f.create(&memory_, bytes, &properties, 0), "cuMemCreate");
    check_driver(f.reserve(&address_, bytes, 0, 0, 0), "cuMemAddressReserve");
    check_driver(f.map(address_, bytes, 0, memory_, 0), "cuMemMap");
    mapped_ = true;
    check_driver(f.set_access(address_, bytes, access.data(), owner == user ? 1 : 2),
                 "cuMemSetAccess");
  } catch (...) {
    close();
    throw;
  }
}

void SharedDeviceMemory::close() noexcept {
  const DriverFunctions& f = driver_functions();
  if (mapped_) f.unmap(address_, bytes_);
  if (address_ != 0) f.free_address(address_, bytes_);
  if (memory_ != 0) f.release(memory_);
}

}  // namespace annulus::engine
