#pragma once

#include <cublas_v2.h>

namespace annulus::moe::cuda {

/// Functions of libcublas, opened at first use, so that programs start where it is not.
struct Library {
  /// Throws Unsupported, each time with the same text.
  static const Library& get();

  decltype(&cublasCreate_v2) create = nullptr;
  decltype(&cublasDestroy_v2) destroy = nullptr;
  decltype(&cublasSetStream_v2) set_stream = nullptr;
  decltype(&cublasSetWorkspace_v2) set_workspace = nullptr;
  decltype(&cublasGetStatusString) status_string = nullptr;
  cublasStatus_t (*gemm)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int,
                         const void*, const void*, cudaDataType, int, const void*, cudaDataType,
                         int, const void*, void*, cudaDataType, int, cublasComputeType_t,
                         cublasGemmAlgo_t) = nullptr;
  /// Null where the library is too old (before 12.5).
  decltype(&cublasGemmGroupedBatchedEx) grouped_gemm = nullptr;
};

/// Throws DeviceError with cuBLAS's words.
void check(cublasStatus_t status, const char* what);

}  // namespace annulus::moe::cuda
