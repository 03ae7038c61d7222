#pragma once

#include "runtime/base/dtype.h"

#include <cstdint>

// CUDA's type for the host.
struct __half {
  __half() = default;
  explicit __half(float x) : bits(annulus::f32_to_f16(x)) {}
  explicit operator float() const { return annulus::f16_to_f32(bits); }
  std::uint16_t bits = 0;
};
