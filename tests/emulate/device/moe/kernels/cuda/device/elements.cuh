#pragma once

#include "runtime/base/dtype.h"

#include <cstdint>

// moe/kernels/cuda/device/elements.cuh for the host.
namespace annulus::moe::cuda {

struct Bf16 {
  std::uint16_t bits;
};
struct Half {
  std::uint16_t bits;
};

inline float to_float(float x) { return x; }
inline float to_float(Bf16 x) { return bf16_to_f32(x.bits); }
inline float to_float(Half x) { return f16_to_f32(x.bits); }

inline void from_float(float value, float& x) { x = value; }
inline void from_float(float value, Bf16& x) { x.bits = f32_to_bf16(value); }
inline void from_float(float value, Half& x) { x.bits = f32_to_f16(value); }

}  // namespace annulus::moe::cuda
