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
#define blockDim (::annulus::emulate::block_shape())

namespace annulus::emulate {

inline Index thread_index() { return {static_cast<unsigned>(Machine::current().thread()), 0, 0}; }

inline Index block_shape() { return {static_cast<unsigned>(Machine::current().threads()), 1, 1}; }
inline int lane() { return Machine::current().thread() % 32; }

template <typename T>
using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;

/// What each lane of the warp gave.
template <typename T>
const std::uint64_t* share(unsigned mask, T value) {
  if (mask != 0xffffffffU) Machine::current().misuse("a shuffle of part of a warp");
  return Machine::current().share(std::bit_cast<Bits<T>>(value));
}

template <typename T>
T shuffle(unsigned mask, T value, int from) {
  return std::bit_cast<T>(static_cast<Bits<T>>(share(mask, value)[from & 31]));
}

}  // namespace annulus::emulate

template <typename T>
T __shfl_sync(unsigned mask, T value, int from) {
  return annulus::emulate::shuffle(mask, value, from);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int other) {
  return annulus::emulate::shuffle(mask, value, annulus::emulate::lane() ^ other);
}
/// Lanes without one so far below keep their own.
template <typename T>
T __shfl_up_sync(unsigned mask, T value, int below) {
  const int from = annulus::emulate::lane() - below;
  return annulus::emulate::shuffle(mask, value, from < 0 ? annulus::emulate::lane() : from);
}
inline unsigned __ballot_sync(unsigned mask, bool holds) {
  const std::uint64_t* all = annulus::emulate::share(mask, holds ? 1U : 0U);
  unsigned bits = 0;
  for (int i = 0; i < 32; ++i) bits |= static_cast<unsigned>(all[i]) << i;
  return bits;
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value) {
  const std::uint64_t* all = annulus::emulate::share(mask, value);
  unsigned same = 0;
  for (int i = 0; i < 32; ++i) {
    if (all[i] == std::bit_cast<std::uint32_t>(value)) same |= 1U << i;
  }
  return same;
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
  const std::uint64_t* all = annulus::emulate::share(mask, value);
  std::uint64_t most = 0;
  for (int i = 0; i < 32; ++i) most = all[i] > most ? all[i] : most;
  return static_cast<unsigned>(most);
}
inline int __any_sync(unsigned mask, int value) {
  int any = 0;
  for (int lane = 0; lane < 32; ++lane) any |= __shfl_sync(mask, value, lane);
  return any;
}
inline void __syncwarp() { (void)__shfl_sync(0xffffffffU, 0, 0); }
inline void __syncthreads() {
  using annulus::emulate::Machine;
  Machine::current().barrier(0, Machine::current().threads(), true);
}
inline int __popc(unsigned bits) { return std::popcount(bits); }
/// One more than the lowest bit's number; 0 for none.
inline int __ffs(int bits) {
  return bits == 0 ? 0 : std::countr_zero(static_cast<unsigned>(bits)) + 1;
}
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
using std::isfinite;
using std::isnan;
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }

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
