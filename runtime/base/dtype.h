#pragma once

#include <annulus/tensor.h>

#include <bit>
#include <cmath>
#include <cstdint>

// Scalar conversions between element types: round to nearest even, once, NaN and inf kept.
namespace annulus {

inline float bf16_to_f32(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

inline std::uint16_t f32_to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  // A NaN whose payload sits in the low half would be cut to inf: set the quiet bit.
  if (std::isnan(value)) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

inline float f16_to_f32(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fU;
  const std::uint32_t mantissa = half & 0x3ffU;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return sign != 0 ? -magnitude : magnitude;
  }
  const std::uint32_t biased = exponent == 31 ? 255U : exponent + 112U;
  return std::bit_cast<float>(sign | (biased << 23) | (mantissa << 13));
}

inline std::uint16_t f32_to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000U;
  std::uint32_t magnitude = bits & 0x7fffffffU;
  std::uint32_t half = 0;
  if (magnitude > 0x7f800000U) {
    half = 0x7e00U;
  } else if (magnitude >= 0x477ff000U) {  // 65520 and above round to inf
    half = 0x7c00U;
  } else if (magnitude < 0x38800000U) {  // below 2^-14: subnormal, in units of 2^-24
    // A float in [0.5, 1) has that unit, so that the addition rounds for us.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    half = std::bit_cast<std::uint32_t>(shifted) - 0x3f000000U;
  } else {
    magnitude += 0xfffU + ((magnitude >> 13) & 1U);
    half = (magnitude - 0x38000000U) >> 13;
  }
  return static_cast<std::uint16_t>(sign | half);
}

/// `value` in f32, rounded to odd: a second rounding to fewer bits then gives what one rounding of
/// `value` would.
inline float f64_to_f32_odd(double value) {
  const auto nearest = static_cast<float>(value);
  if (std::isnan(value) || static_cast<double>(nearest) == value) return nearest;
  auto bits = std::bit_cast<std::uint32_t>(nearest);
  if (std::abs(static_cast<double>(nearest)) > std::abs(value)) --bits;
  return std::bit_cast<float>(bits | 1U);
}

inline std::uint16_t f64_to_bf16(double value) { return f32_to_bf16(f64_to_f32_odd(value)); }
inline std::uint16_t f64_to_f16(double value) { return f32_to_f16(f64_to_f32_odd(value)); }

/// Element `index` of an array of `dtype`.
inline double load_f64(const void* data, DType dtype, std::int64_t index) {
  switch (dtype) {
    case DType::f32:
      return static_cast<double>(static_cast<const float*>(data)[index]);
    case DType::f16:
      return static_cast<double>(f16_to_f32(static_cast<const std::uint16_t*>(data)[index]));
    case DType::bf16:
      return static_cast<double>(bf16_to_f32(static_cast<const std::uint16_t*>(data)[index]));
    case DType::f64:
      return static_cast<const double*>(data)[index];
  }
  return 0.0;
}

inline void store_f64(void* data, DType dtype, std::int64_t index, double value) {
  switch (dtype) {
    case DType::f32:
      static_cast<float*>(data)[index] = static_cast<float>(value);
      break;
    case DType::f16:
      static_cast<std::uint16_t*>(data)[index] = f64_to_f16(value);
      break;
    case DType::bf16:
      static_cast<std::uint16_t*>(data)[index] = f64_to_bf16(value);
      break;
    case DType::f64:
      static_cast<double*>(data)[index] = value;
      break;
  }
}

inline void store_f32(void* data, DType dtype, std::int64_t index, float value) {
  switch (dtype) {
    case DType::f32:
      static_cast<float*>(data)[index] = value;
      break;
    case DType::f16:
      static_cast<std::uint16_t*>(data)[index] = f32_to_f16(value);
      break;
    case DType::bf16:
      static_cast<std::uint16_t*>(data)[index] = f32_to_bf16(value);
      break;
    case DType::f64:
      static_cast<double*>(data)[index] = static_cast<double>(value);
      break;
  }
}

/// `value` as an element of `dtype` would hold it.
inline double rounded_to(DType dtype, double value) {
  double slot = 0.0;
  store_f64(&slot, dtype, 0, value);
  return load_f64(&slot, dtype, 0);
}

}  // namespace annulus
