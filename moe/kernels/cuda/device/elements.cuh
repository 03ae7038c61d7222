#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

// Elements of two bytes, and how they become floats. tests/emulate has the same for the host.
namespace annulus::moe::cuda {

struct Bf16 {
  std::uint16_t bits;
};
struct Half {
  std::uint16_t bits;
};

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(Bf16 x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}
__device__ inline float to_float(Half x) { return __half2float(__ushort_as_half(x.bits)); }

__device__ inline void from_float(float value, float& x) { x = value; }
__device__ inline void from_float(float value, Bf16& x) {
  x.bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
}
__device__ inline void from_float(float value, Half& x) {
  x.bits = __half_as_ushort(__float2half_rn(value));
}

}  // namespace annulus::moe::cuda
