#pragma once

#include "runtime/base/dtype.h"

#include <cstdint>

// CUDA's type for the host.
struct __nv_bfloat16 {
  __nv_bfloat16() = default;
  explicit __nv_bfloat16(float x) : bits(annulus::f32_to_bf16(x)) {}
  explicit operator float() const { return annulus::bf16_to_f32(bits); }
  std::uint16_t bits = 0;
};
