#pragma once

#include <cuda.h>

namespace annulus::comm::peer {

/// Functions of the CUDA driver, looked up at run time, so that programs start where no driver is.
struct Driver {
  /// Throws Unsupported where the driver lacks one of them.
  static Driver load();

  decltype(&cuStreamBatchMemOp) batch = nullptr;
  decltype(&cuMemGetAddressRange) address_range = nullptr;
  decltype(&cuMemGetAllocationGranularity) granularity = nullptr;
  decltype(&cuMemCreate) create = nullptr;
  decltype(&cuMemAddressReserve) reserve = nullptr;
  decltype(&cuMemMap) map = nullptr;
  decltype(&cuMemSetAccess) set_access = nullptr;
  decltype(&cuMemUnmap) unmap = nullptr;
  decltype(&cuMemAddressFree) unreserve = nullptr;
  decltype(&cuMemRelease) release = nullptr;
};

/// Throws DeviceError.
void check_driver(CUresult code, const char* what);

}  // namespace annulus::comm::peer
