// The bodies behind BlockOps, in the namespace of the instruction set being compiled. The product
// is built like that of the attention kernels, which this folder may not include.
#if defined(ANNULUS_MOE_BLOCK_OPS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_MOE_BLOCK_OPS_INL_H
#undef ANNULUS_MOE_BLOCK_OPS_INL_H
#else
#define ANNULUS_MOE_BLOCK_OPS_INL_H
#endif

#include <hwy/highway.h>

#include "moe/kernels/cpu/block_ops.h"
#include "runtime/base/dtype.h"

#include <cstddef>
#include <type_traits>

HWY_BEFORE_NAMESPACE();
namespace annulus::moe::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, kPad>;
using Ints = hn::RebindToSigned<Floats>;
using Vector = hn::Vec<Floats>;
using IntVector = hn::Vec<Ints>;

inline constexpr std::int64_t kLanes = static_cast<std::int64_t>(hn::MaxLanes(Floats()));

// kM x kN accumulators, the operands of one k and nothing else must fit in the registers:
// 6 x 4 of 32 with AVX-512, 6 x 2 of 16 elsewhere.
inline constexpr std::int64_t kM = 6;
inline constexpr std::int64_t kN = HWY_TARGET <= HWY_AVX3 ? 4 : 2;

template <std::int64_t M, std::int64_t N>
HWY_INLINE void multiply_block(const Block& p, std::int64_t m0, std::int64_t n0) {
  const Floats d;
  Vector sums[static_cast<std::size_t>(M)][static_cast<std::size_t>(N)];
  for (std::int64_t m = 0; m < M; ++m) {
    const float* HWY_RESTRICT c = p.c + (m0 + m) * p.c_m + n0;
    for (std::int64_t n = 0; n < N; ++n) sums[m][n] = hn::LoadU(d, c + n * kLanes);
  }
  const float* HWY_RESTRICT a = p.a + m0 * p.a_m;
  const float* HWY_RESTRICT b = p.b + n0;
  for (std::int64_t k = 0; k < p.k; ++k, a += p.a_k, b += p.b_k) {
    Vector right[static_cast<std::size_t>(N)];
    for (std::int64_t n = 0; n < N; ++n) right[n] = hn::LoadU(d, b + n * kLanes);
    for (std::int64_t m = 0; m < M; ++m) {
      const Vector left = hn::Set(d, a[m * p.a_m]);
      for (std::int64_t n = 0; n < N; ++n) sums[m][n] = hn::MulAdd(left, right[n], sums[m][n]);
    }
  }
  for (std::int64_t m = 0; m < M; ++m) {
    float* HWY_RESTRICT c = p.c + (m0 + m) * p.c_m + n0;
    for (std::int64_t n = 0; n < N; ++n) hn::StoreU(sums[m][n], d, c + n * kLanes);
  }
}

template <std::int64_t N>
HWY_INLINE void multiply_columns(const Block& p, std::int64_t n0) {
  std::int64_t m = 0;
  for (; m + kM <= p.m; m += kM) multiply_block<kM, N>(p, m, n0);
  if (m + 4 <= p.m) {
    multiply_block<4, N>(p, m, n0);
    m += 4;
  }
  if (m + 2 <= p.m) {
    multiply_block<2, N>(p, m, n0);
    m += 2;
  }
  if (m < p.m) multiply_block<1, N>(p, m, n0);
}

inline void multiply(const Block& p) {
  std::int64_t n = 0;
  for (; n + kN * kLanes <= p.n; n += kN * kLanes) multiply_columns<kN>(p, n);
  for (; n + 2 * kLanes <= p.n; n += 2 * kLanes) multiply_columns<2>(p, n);
  for (; n + kLanes <= p.n; n += kLanes) multiply_columns<1>(p, n);
}

/// Four rows and columns at a time, in registers.
inline void transpose(const Transposition& t) {
  std::int64_t whole_rows = 0, whole_columns = 0;
#if HWY_TARGET != HWY_SCALAR
  whole_rows = t.rows / 4 * 4;
  whole_columns = t.columns / 4 * 4;
  const hn::FixedTag<float, 4> d;
  const hn::FixedTag<double, 2> pairs;
  for (std::int64_t r = 0; r < whole_rows; r += 4) {
    for (std::int64_t c = 0; c < whole_columns; c += 4) {
      const float* from = t.from + r * t.from_pitch + c;
      const auto row0 = hn::LoadU(d, from), row1 = hn::LoadU(d, from + t.from_pitch);
      const auto row2 = hn::LoadU(d, from + 2 * t.from_pitch);
      const auto row3 = hn::LoadU(d, from + 3 * t.from_pitch);
      const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, row0, row1));
      const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, row2, row3));
      const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, row0, row1));
      const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, row2, row3));
      float* to = t.to + c * t.to_pitch + r;
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, to);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, to + t.to_pitch);
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d,
                 to + 2 * t.to_pitch);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d,
                 to + 3 * t.to_pitch);
    }
  }
#endif
  for (std::int64_t r = 0; r < t.rows; ++r) {
    for (std::int64_t c = r < whole_rows ? whole_columns : 0; c < t.columns; ++c) {
      t.to[c * t.to_pitch + r] = t.from[r * t.from_pitch + c];
    }
  }
}

template <typename Half>
HWY_INLINE void widen_half(const std::uint16_t* source, std::int64_t n, float* target) {
  const Floats d;
  const hn::Rebind<Half, Floats> dh;
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const auto half = hn::LoadU(dh, reinterpret_cast<const Half*>(source + i));
    hn::StoreU(hn::PromoteTo(d, half), d, target + i);
  }
  constexpr DType kType = std::is_same_v<Half, hwy::bfloat16_t> ? DType::bf16 : DType::f16;
  for (; i < n; ++i) target[i] = static_cast<float>(load_f64(source, kType, i));
}

inline void widen(const void* source, DType dtype, std::int64_t n, float* target) {
  switch (dtype) {
    case DType::f32:
      for (std::int64_t i = 0; i < n; ++i) target[i] = static_cast<const float*>(source)[i];
      return;
    case DType::f16:
      widen_half<hwy::float16_t>(static_cast<const std::uint16_t*>(source), n, target);
      return;
    case DType::bf16:
      widen_half<hwy::bfloat16_t>(static_cast<const std::uint16_t*>(source), n, target);
      return;
    case DType::f64:
      for (std::int64_t i = 0; i < n; ++i) {
        target[i] = static_cast<float>(static_cast<const double*>(source)[i]);
      }
      return;
  }
}

/// f32_to_bf16 of a vector: the library's conversion cuts.
HWY_INLINE IntVector bf16_bits(Vector x) {
  const Ints di;
  const IntVector bits = hn::BitCast(di, x);
  const IntVector odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(di, 1));
  const IntVector rounded = hn::Add(bits, hn::Add(odd, hn::Set(di, 0x7fff)));
  const IntVector quiet = hn::Or(bits, hn::Set(di, 0x400000));
  return hn::ShiftRight<16>(hn::IfThenElse(hn::RebindMask(di, hn::IsNaN(x)), quiet, rounded));
}

inline void narrow(const float* source, std::int64_t n, DType dtype, void* target) {
  const Floats d;
  std::int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::Rebind<std::uint16_t, Floats> d16;
  const hn::RebindToUnsigned<Floats> du;
  for (; dtype == DType::bf16 && i + kLanes <= n; i += kLanes) {
    const IntVector bits = bf16_bits(hn::LoadU(d, source + i));
    const auto low = hn::And(hn::BitCast(du, bits), hn::Set(du, 0xffffU));
    hn::StoreU(hn::DemoteTo(d16, hn::BitCast(Ints(), low)), d16,
               static_cast<std::uint16_t*>(target) + i);
  }
#endif
  for (; dtype == DType::f32 && i + kLanes <= n; i += kLanes) {
    hn::StoreU(hn::LoadU(d, source + i), d, static_cast<float*>(target) + i);
  }
  for (; i < n; ++i) store_f32(target, dtype, i, source[i]);
}

}  // namespace HWY_NAMESPACE
}  // namespace annulus::moe::cpu
HWY_AFTER_NAMESPACE();

#endif  // include guard, one pass for each instruction set
