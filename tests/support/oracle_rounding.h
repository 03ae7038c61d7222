#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define ANNULUS_ORACLE __device__ inline
#else
#include "runtime/base/dtype.h"
#define ANNULUS_ORACLE inline
#endif

// What the oracle's steps round to, on a GPU and on the host.
namespace annulus::testing {

enum class OracleRounding { none, bf16, f16 };

template <typename Real>
ANNULUS_ORACLE Real rounded_oracle(OracleRounding to, Real value) {
  if (to == OracleRounding::none) return value;
#ifdef __CUDACC__
  const auto narrow = static_cast<float>(value);
  return to == OracleRounding::bf16 ? __bfloat162float(__float2bfloat16_rn(narrow))
                                    : __half2float(__float2half_rn(narrow));
#else
  return static_cast<Real>(rounded_to(to == OracleRounding::bf16 ? DType::bf16 : DType::f16,
                                      static_cast<double>(value)));
#endif
}

}  // namespace annulus::testing
