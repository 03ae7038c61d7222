#pragma once

// What CUDA C++ has without an include, for kernels that are compiled for the host. Included before
// everything else (-include).
#include "tests/emulate/machine.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#define __device__
#define __forceinline__ inline
#define threadIdx (::annulus::emulate::thread_index())
#define blockIdx (::annulus::emulate::Machine::current().block())
#define gridDim (::annulus::emulate::Machine::current().grid())

namespace annulus::emulate {

inline Index thread_index() { return {static_cast<unsigned>(Machine::current().thread()), 0, 0}; }

template <typename T>
T shuffle(unsigned mask, T value, int from) {
  static_assert(sizeof(T) == 4);
  if (mask != 0xffffffffU) Machine::current().misuse("a shuffle of part of a warp");
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return std::bit_cast<T>(static_cast<std::uint32_t>(Machine::current().exchange(bits, from)));
}

}  // namespace annulus::emulate

template <typename T>
T __shfl_sync(unsigned mask, T value, int from) {
  return annulus::emulate::shuffle(mask, value, from);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int other) {
  return annulus::emulate::shuffle(mask, value,
                                   annulus::emulate::Machine::current().thread() % 32 ^ other);
}
inline int __any_sync(unsigned mask, int value) {
  int any = 0;
  for (int lane = 0; lane < 32; ++lane) any |= __shfl_sync(mask, value, lane);
  return any;
}
inline void __syncwarp() { (void)__shfl_sync(0xffffffffU, 0, 0); }
inline void __syncthreads();
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmul_rn(float a, float b) { return a * b; }

template <typename T, typename U>
T atomicAdd(T* to, U value) {
  const T before = *to;
  *to += static_cast<T>(value);
  return before;
}

inline int max(int a, int b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }

struct float2 {
  float x, y;
};
struct float4 {
  float x, y, z, w;
};
struct uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
