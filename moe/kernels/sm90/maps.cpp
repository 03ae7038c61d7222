#include "moe/kernels/sm90/maps.h"

#include "runtime/base/cuda_check.h"

#include <annulus/error.h>

#include <cuda_runtime_api.h>

#include <string>

namespace annulus::moe::sm90 {
namespace {

int attribute(cudaDeviceAttr which) {
  int device = 0;
  int value = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

/// Found at run time: the library starts where no driver is.
using Encode = decltype(&cuTensorMapEncodeTiled);
Encode find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                              12000, cudaEnableDefault, &found);
  if (status != cudaSuccess || found != cudaDriverEntryPointSuccess || function == nullptr) {
    (void)cudaGetLastError();
    throw Unsupported("the CUDA driver has no cuTensorMapEncodeTiled");
  }
  return reinterpret_cast<Encode>(function);
}

}  // namespace

bool has_grouped() { return attribute(cudaDevAttrComputeCapabilityMajor) == 9; }

int multiprocessors() { return attribute(cudaDevAttrMultiProcessorCount); }

CUtensorMap encode(const MapShape& shape, int rows) {
  static const Encode function = find_encode();
  const cuuint32_t box[4] = {64, static_cast<cuuint32_t>(rows), 1, 1};
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  CUtensorMap map;
  const CUresult code =
      function(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<void*>(shape.data),
               shape.extents.data(), shape.strides.data(), box, steps,
               CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (code != CUDA_SUCCESS) {
    throw DeviceError("cuTensorMapEncodeTiled: CUDA driver error " +
                      std::to_string(static_cast<int>(code)));
  }
  return map;
}

}  // namespace annulus::moe::sm90
