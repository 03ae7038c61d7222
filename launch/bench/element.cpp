#include "launch/bench/element.h"

#include <bit>
#include <cmath>
#include <cstring>

namespace annulus::launch {
namespace {

std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

float from_bf16(std::uint16_t half) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16);
}

std::uint16_t to_f16(float value) {
  std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000U;
  bits &= 0x7fffffffU;
  if (bits > 0x7f800000U) return static_cast<std::uint16_t>(sign | 0x7e00U);
  if (bits >= 0x47800000U) return static_cast<std::uint16_t>(sign | 0x7c00U);
  if (bits < 0x38800000U) {
    // Subnormal: adding 0.5 makes the FPU round at 2^-24, their step.
    const float aligned = std::bit_cast<float>(bits) + 0.5F;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(aligned) - 0x3f000000U));
  }
  bits += 0xc8000fffU + ((bits >> 13) & 1U);
  return static_cast<std::uint16_t>(sign | (bits >> 13));
}

float from_f16(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16;
  const std::uint32_t magnitude = (half & 0x7fffU) << 13;
  const float value = magnitude >= 0x0f800000U ? std::bit_cast<float>(magnitude | 0x7f800000U)
                                               : std::bit_cast<float>(magnitude) * 0x1p112F;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign);
}

template <typename T>
T read(const void* data, std::int64_t index) {
  T value;
  std::memcpy(&value, static_cast<const T*>(data) + index, sizeof(T));
  return value;
}

template <typename T>
void write(void* data, std::int64_t index, T value) {
  std::memcpy(static_cast<T*>(data) + index, &value, sizeof(T));
}

}  // namespace

void store_element(void* data, DType dtype, std::int64_t index, double value) {
  switch (dtype) {
    case DType::f32:
      return write(data, index, static_cast<float>(value));
    case DType::f16:
      return write(data, index, to_f16(static_cast<float>(value)));
    case DType::bf16:
      return write(data, index, to_bf16(static_cast<float>(value)));
    case DType::f64:
      return write(data, index, value);
  }
}

double load_element(const void* data, DType dtype, std::int64_t index) {
  switch (dtype) {
    case DType::f32:
      return static_cast<double>(read<float>(data, index));
    case DType::f16:
      return static_cast<double>(from_f16(read<std::uint16_t>(data, index)));
    case DType::bf16:
      return static_cast<double>(from_bf16(read<std::uint16_t>(data, index)));
    case DType::f64:
      return read<double>(data, index);
  }
  return 0;
}

double rounded(DType dtype, double value) {
  double memory = 0;
  store_element(&memory, dtype, 0, value);
  return load_element(&memory, dtype, 0);
}

double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return 0x1p-24;
    case DType::f16:
      return 0x1p-11;
    case DType::bf16:
      return 0x1p-8;
    case DType::f64:
      return 0x1p-53;
  }
  return 0;
}

}  // namespace annulus::launch
