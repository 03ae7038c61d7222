#include "attention/kernels/sm90/driver.h"

#include <annulus/error.h>

#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <string>

namespace annulus::attn::sm90 {

namespace {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    throw DeviceError(std::string(what) + ": " + cudaGetErrorString(status));
  }
}

int attribute(cudaDeviceAttr which) {
  int device = 0;
  int value = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
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

int multiprocessors() {
  static std::array<std::atomic<int>, 64> known{};  // by device; asked for at each launch
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  const auto index = static_cast<std::size_t>(device);
  if (index >= known.size()) return attribute(cudaDevAttrMultiProcessorCount);
  if (known[index] == 0) known[index] = attribute(cudaDevAttrMultiProcessorCount);
  return known[index];
}

int capability() {
  try {
    return 10 * attribute(cudaDevAttrComputeCapabilityMajor) +
           attribute(cudaDevAttrComputeCapabilityMinor);
  } catch (const DeviceError&) {
    (void)cudaGetLastError();
    return 0;
  }
}

CUtensorMap encode(const TensorShape& shape, DType dtype, int rows) {
  static const Encode function = find_encode();
  const bool wide = dtype == DType::f32;
  const cuuint32_t box[4] = {wide ? 32U : 64U, static_cast<cuuint32_t>(rows), 1, 1};
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  CUtensorMap map;
  const CUresult code =
      function(&map,
               wide                   ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32
               : dtype == DType::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                      : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
               4, const_cast<void*>(shape.data), shape.extents.data(), shape.strides.data(), box,
               steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (code != CUDA_SUCCESS) {
    throw DeviceError("cuTensorMapEncodeTiled: CUDA driver error " +
                      std::to_string(static_cast<int>(code)));
  }
  return map;
}

}  // namespace annulus::attn::sm90
