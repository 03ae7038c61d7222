#pragma once

#include "attention/kernels/cuda/device/places.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

// Scalars: exponentials, the softcap, elements of a type known at run time.
namespace annulus::attn::cuda {

/// 2^x: two units in the last place; 2^-inf = 0.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// tanh by 1 - 2 / (exp(2x) + 1): absolute error near 2^-23, which softcap times that of the logit
/// is what an f32 logit leaves unknown anyway. tanh.approx has only 11 bits.
__device__ inline float tanh_fast(float x) {
  return 1.0F - __fdividef(2.0F, exp2_fast(2.0F * kLog2E * fminf(x, 40.0F)) + 1.0F);
}

__device__ inline float tanh_of(float x) { return tanhf(x); }
__device__ inline double tanh_of(double x) { return tanh(x); }
__device__ inline float exp_of(float x) { return expf(x); }
__device__ inline double exp_of(double x) { return exp(x); }
__device__ inline float log_of(float x) { return logf(x); }
__device__ inline double log_of(double x) { return log(x); }

/// The logit of a raw product q.k and its derivative by softmax_scale * q.k.
template <typename Real>
struct Logit {
  Real value, slope;
};

template <typename Real>
__device__ inline Logit<Real> logit_of(const Geometry& g, Real product) {
  const Real score = product * static_cast<Real>(g.softmax_scale);
  if (g.softcap == 0.0) return {score, Real(1)};
  const Real cap = static_cast<Real>(g.softcap);
  const Real t = tanh_of(score / cap);
  return {cap * t, Real(1) - t * t};
}

template <typename Real>
__device__ inline Real load_element(const void* data, DType dtype, std::int64_t index) {
  switch (dtype) {
    case DType::f32:
      return static_cast<Real>(static_cast<const float*>(data)[index]);
    case DType::f16:
      return static_cast<Real>(__half2float(static_cast<const __half*>(data)[index]));
    case DType::bf16:
      return static_cast<Real>(__bfloat162float(static_cast<const __nv_bfloat16*>(data)[index]));
    case DType::f64:
      return static_cast<Real>(static_cast<const double*>(data)[index]);
  }
  return Real(0);
}

/// One rounding.
template <typename Real>
__device__ inline void store_element(void* data, DType dtype, std::int64_t index, Real value) {
  switch (dtype) {
    case DType::f32:
      static_cast<float*>(data)[index] = static_cast<float>(value);
      break;
    case DType::f16:
      if constexpr (sizeof(Real) == 8) {
        static_cast<__half*>(data)[index] = __double2half(value);
      } else {
        static_cast<__half*>(data)[index] = __float2half_rn(value);
      }
      break;
    case DType::bf16:
      if constexpr (sizeof(Real) == 8) {
        static_cast<__nv_bfloat16*>(data)[index] = __double2bfloat16(value);
      } else {
        static_cast<__nv_bfloat16*>(data)[index] = __float2bfloat16_rn(value);
      }
      break;
    case DType::f64:
      static_cast<double*>(data)[index] = static_cast<double>(value);
      break;
  }
}

}  // namespace annulus::attn::cuda
