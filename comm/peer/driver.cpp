#include "comm/peer/driver.h"

#include <annulus/error.h>

#include <cuda_runtime_api.h>
#include <fmt/format.h>

namespace annulus::comm::peer {
namespace {

template <typename Function>
void find(const char* name, Function& found_function) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t code =
      cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found);
  if (code != cudaSuccess || found != cudaDriverEntryPointSuccess || function == nullptr) {
    (void)cudaGetLastError();
    throw Unsupported(fmt::format("the CUDA driver has no {}", name));
  }
  found_function = reinterpret_cast<Function>(function);
}

}  // namespace

Driver Driver::load() {
  Driver driver;
  find("cuStreamBatchMemOp", driver.batch);
  find("cuMemGetAddressRange", driver.address_range);
  find("cuMemGetAllocationGranularity", driver.granularity);
  find("cuMemCreate", driver.create);
  find("cuMemAddressReserve", driver.reserve);
  find("cuMemMap", driver.map);
  find("cuMemSetAccess", driver.set_access);
  find("cuMemUnmap", driver.unmap);
  find("cuMemAddressFree", driver.unreserve);
  find("cuMemRelease", driver.release);
  return driver;
}

void check_driver(CUresult code, const char* what) {
  if (code == CUDA_SUCCESS) return;
  throw DeviceError(fmt::format("{}: CUDA driver error {}", what, static_cast<int>(code)));
}

}  // namespace annulus::comm::peer
