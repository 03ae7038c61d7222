// The bodies behind TileOps, in the namespace of the instruction set being compiled.
#if defined(ANNULUS_TILE_OPS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_TILE_OPS_INL_H
#undef ANNULUS_TILE_OPS_INL_H
#else
#define ANNULUS_TILE_OPS_INL_H
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "attention/kernels/cpu/tile_ops.h"
#include "runtime/base/dtype.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <type_traits>

HWY_BEFORE_NAMESPACE();
namespace annulus::attn::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, kPad>;
using Ints = hn::RebindToSigned<Floats>;
using Vector = hn::Vec<Floats>;
using IntVector = hn::Vec<Ints>;
using Lanes = hn::Mask<Floats>;

inline constexpr std::int64_t kLanes = static_cast<std::int64_t>(hn::MaxLanes(Floats()));
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

// kM x kN accumulators, the operands of one k and nothing else must fit in the registers:
// 6 x 4 of 32 with AVX-512, 6 x 2 of 16 elsewhere.
inline constexpr std::int64_t kM = 6;
inline constexpr std::int64_t kN = HWY_TARGET <= HWY_AVX3 ? 4 : 2;

template <std::int64_t M, std::int64_t N>
HWY_INLINE void multiply_block(const Product& p, std::int64_t m0, std::int64_t n0) {
  const Floats d;
  Vector sums[static_cast<std::size_t>(M)][static_cast<std::size_t>(N)];
  for (auto& row : sums) {
    for (Vector& sum : row) sum = hn::Zero(d);
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
    for (std::int64_t n = 0; n < N; ++n) {
      const Vector sum = sums[m][n];
      hn::StoreU(p.add ? hn::Add(hn::LoadU(d, c + n * kLanes), sum) : sum, d, c + n * kLanes);
    }
  }
}

template <std::int64_t N>
HWY_INLINE void multiply_columns(const Product& p, std::int64_t n0) {
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

inline void multiply(const Product& p) {
  std::int64_t n = 0;
  for (; n + kN * kLanes <= p.n; n += kN * kLanes) multiply_columns<kN>(p, n);
  for (; n + 2 * kLanes <= p.n; n += 2 * kLanes) multiply_columns<2>(p, n);
  for (; n + kLanes <= p.n; n += kLanes) multiply_columns<1>(p, n);
}

/// exp of x <= 88, to 2 units in the last place; 0 below the smallest normal number; a NaN stays
/// one. 2^n is built in the low bits of a float whose unit is 1, and shifted into the exponent.
HWY_INLINE Vector exponential(Vector x) {
  const Floats d;
  const Vector shift = hn::Set(d, 12582912.0F + 127.0F);  // 1.5 * 2^23, and the exponent's bias
  const Vector biased = hn::MulAdd(x, hn::Set(d, 1.44269504F), shift);
  const Vector n = hn::Sub(biased, shift);
  Vector r =
      hn::NegMulAdd(n, hn::Set(d, 0.693359375F), x);  // ln 2 in two parts: the first is exact
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4F), r);
  Vector y = hn::Set(d, 1.9875691500e-4F);  // (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2, from Cephes
  y = hn::MulAdd(y, r, hn::Set(d, 1.3981999507e-3F));
  y = hn::MulAdd(y, r, hn::Set(d, 8.3334519073e-3F));
  y = hn::MulAdd(y, r, hn::Set(d, 4.1665795894e-2F));
  y = hn::MulAdd(y, r, hn::Set(d, 1.6666665459e-1F));
  y = hn::MulAdd(y, r, hn::Set(d, 5.0000001201e-1F));
  y = hn::Add(hn::MulAdd(hn::Mul(r, r), y, r), hn::Set(d, 1.0F));
  const Vector power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(Ints(), biased)));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.3F)), hn::Mul(y, power));
}

/// The ranges of the rows in one vector, and the test of a key against them.
class VisibleKeys {
 public:
  VisibleKeys(const RowRanges& ranges, std::int64_t row)
      : begin0_(hn::LoadU(Ints(), ranges.begin[0] + row)),
        end0_(hn::LoadU(Ints(), ranges.end[0] + row)),
        begin1_(hn::LoadU(Ints(), ranges.begin[1] + row)),
        end1_(hn::LoadU(Ints(), ranges.end[1] + row)) {}

  /// `score` where the row sees the key, else -inf.
  HWY_INLINE Vector mask(Vector score, std::int64_t key) const {
    const IntVector index = hn::Set(Ints(), static_cast<std::int32_t>(key));
    const auto first = hn::AndNot(hn::Lt(index, begin0_), hn::Lt(index, end0_));
    const auto second = hn::AndNot(hn::Lt(index, begin1_), hn::Lt(index, end1_));
    const Lanes visible = hn::RebindMask(Floats(), hn::Or(first, second));
    return hn::IfThenElse(visible, score, hn::Set(Floats(), -kInfinity));
  }

 private:
  IntVector begin0_, end0_, begin1_, end1_;
};

inline constexpr RowRanges kNoRanges{};

/// Logits of one vector of rows; `slope` becomes d logit / d product.
struct Logits {
  Logits() = default;
  Logits(const ScoreRule& rule, std::int64_t row)
      : visible(rule.mask != nullptr ? *rule.mask : kNoRanges, row),
        cap(hn::Set(Floats(), rule.softcap)),
        capped(rule.softcap > 0.0F),
        masked(rule.mask != nullptr) {}

  bool plain() const { return !capped && !masked; }

  HWY_INLINE Vector operator()(Vector score, std::int64_t key, Vector& slope) const {
    const Floats d;
    if (capped) {
      const Vector t = hn::Tanh(d, hn::Div(score, cap));
      score = hn::Mul(cap, t);
      slope = hn::NegMulAdd(t, t, hn::Set(d, 1.0F));
    }
    return masked ? visible.mask(score, key) : score;
  }

  VisibleKeys visible{kNoRanges, 0};
  Vector cap = hn::Zero(Floats());
  bool capped = false;
  bool masked = false;
};

inline void score(const ScoreStep& s) {
  const Floats d;
  Vector slope = hn::Zero(d);
  for (std::int64_t row = 0; row < s.rows; row += kLanes) {
    const Logits logits(s.rule, row);
    if (logits.plain()) return;
    for (std::int64_t key = 0; key < s.keys; ++key) {
      float* HWY_RESTRICT at = s.tile + key * kRows + row;
      hn::StoreU(logits(hn::LoadU(d, at), key, slope), d, at);
    }
  }
}

/// N vectors of rows abreast: their chains of max and sum run in parallel.
template <std::int64_t N>
HWY_INLINE void softmax_columns(const SoftmaxStep& s, std::int64_t row) {
  const Floats d;
  float* tile = s.tile + row;
  const float* from = s.from != nullptr ? s.from + row : tile;
  Logits logits[static_cast<std::size_t>(N)];
  Vector old_max[static_cast<std::size_t>(N)], new_max[static_cast<std::size_t>(N)];
  Vector slope = hn::Zero(d);
  for (std::int64_t n = 0; n < N; ++n) {
    logits[n] = Logits(s.rule, row + n * kLanes);
    old_max[n] = new_max[n] = hn::LoadU(d, s.row_max + row + n * kLanes);
  }
  const bool plain = logits[0].plain();
  for (std::int64_t key = 0; key < s.keys; ++key) {
    for (std::int64_t n = 0; n < N; ++n) {
      const std::int64_t at = key * kRows + n * kLanes;
      Vector score = hn::LoadU(d, from + at);
      if (!plain) {
        score = logits[n](score, key, slope);
        hn::StoreU(score, d, tile + at);
      }
      new_max[n] = hn::Max(new_max[n], score);
    }
  }
  Vector shift[static_cast<std::size_t>(N)], sum[static_cast<std::size_t>(N)];
  for (std::int64_t n = 0; n < N; ++n) {
    // A row that has seen no key yet keeps -inf, but -inf - -inf would be NaN.
    const auto unseen = hn::Eq(new_max[n], hn::Set(d, -kInfinity));
    shift[n] = hn::IfThenZeroElse(unseen, new_max[n]);
    sum[n] = hn::Zero(d);
  }
  for (std::int64_t key = 0; key < s.keys; ++key) {
    for (std::int64_t n = 0; n < N; ++n) {
      const std::int64_t at = key * kRows + n * kLanes;
      const Vector p = exponential(hn::Sub(hn::LoadU(d, from + at), shift[n]));
      hn::StoreU(p, d, tile + at);
      sum[n] = hn::Add(sum[n], p);
    }
  }
  for (std::int64_t n = 0; n < N; ++n) {
    const std::int64_t at = row + n * kLanes;
    const Vector rescale = exponential(hn::Sub(old_max[n], shift[n]));
    hn::StoreU(new_max[n], d, s.row_max + at);
    hn::StoreU(hn::MulAdd(hn::LoadU(d, s.row_sum + at), rescale, sum[n]), d, s.row_sum + at);
    // Times one changes no bit, so leaving it out does not either.
    if (hn::AllTrue(d, hn::Eq(rescale, hn::Set(d, 1.0F)))) continue;
    float* HWY_RESTRICT out = s.accumulator + at;
    for (std::int64_t i = 0; i < s.dim; ++i) {
      hn::StoreU(hn::Mul(hn::LoadU(d, out + i * kRows), rescale), d, out + i * kRows);
    }
  }
}

inline void softmax(const SoftmaxStep& step) {
  std::int64_t row = 0;
  for (; row + 4 * kLanes <= step.rows; row += 4 * kLanes) softmax_columns<4>(step, row);
  for (; row < step.rows; row += kLanes) softmax_columns<1>(step, row);
}

inline void gradient_column(const GradientStep& s, std::int64_t row) {
  const Floats d;
  const Logits logits(s.rule, row);
  const Vector lse = hn::LoadU(d, s.lse + row);
  const Vector delta = hn::LoadU(d, s.delta + row);
  for (std::int64_t key = 0; key < s.keys; ++key) {
    float* HWY_RESTRICT p_at = s.p + key * kRows + row;
    float* HWY_RESTRICT ds_at = s.ds + key * kRows + row;
    Vector slope = hn::Set(d, 1.0F);
    const Vector logit = logits(hn::LoadU(d, p_at), key, slope);
    const Vector p = exponential(hn::Sub(logit, lse));
    const Vector ds = hn::Mul(p, hn::Sub(hn::LoadU(d, ds_at), delta));
    hn::StoreU(p, d, p_at);
    hn::StoreU(logits.capped ? hn::Mul(ds, slope) : ds, d, ds_at);
  }
}

inline void gradient(const GradientStep& step) {
  for (std::int64_t row = 0; row < step.rows; row += kLanes) gradient_column(step, row);
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
HWY_INLINE void widen_half(const std::uint16_t* source, std::int64_t n, float factor,
                           float* target) {
  const Floats d;
  const hn::Rebind<Half, Floats> dh;
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const auto half = hn::LoadU(dh, reinterpret_cast<const Half*>(source + i));
    hn::StoreU(hn::Mul(hn::PromoteTo(d, half), hn::Set(d, factor)), d, target + i);
  }
  constexpr DType kType = std::is_same_v<Half, hwy::bfloat16_t> ? DType::bf16 : DType::f16;
  for (; i < n; ++i) target[i] = factor * static_cast<float>(load_f64(source, kType, i));
}

inline void widen(const void* source, DType dtype, std::int64_t n, float factor, float* target) {
  switch (dtype) {
    case DType::f32:
      for (std::int64_t i = 0; i < n; ++i) {
        target[i] = factor * static_cast<const float*>(source)[i];
      }
      return;
    case DType::f16:
      widen_half<hwy::float16_t>(static_cast<const std::uint16_t*>(source), n, factor, target);
      return;
    case DType::bf16:
      widen_half<hwy::bfloat16_t>(static_cast<const std::uint16_t*>(source), n, factor, target);
      return;
    case DType::f64:
      for (std::int64_t i = 0; i < n; ++i) {
        target[i] = factor * static_cast<float>(static_cast<const double*>(source)[i]);
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

inline void narrow(const float* source, std::int64_t n, float factor, DType dtype, void* target) {
  const Floats d;
  std::int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::Rebind<std::uint16_t, Floats> d16;
  const hn::RebindToUnsigned<Floats> du;
  for (; dtype == DType::bf16 && i + kLanes <= n; i += kLanes) {
    const Vector x = hn::Mul(hn::LoadU(d, source + i), hn::Set(d, factor));
    const auto low = hn::And(hn::BitCast(du, bf16_bits(x)), hn::Set(du, 0xffffU));
    hn::StoreU(hn::DemoteTo(d16, hn::BitCast(Ints(), low)), d16,
               static_cast<std::uint16_t*>(target) + i);
  }
#endif
  for (; dtype == DType::f32 && i + kLanes <= n; i += kLanes) {
    hn::StoreU(hn::Mul(hn::LoadU(d, source + i), hn::Set(d, factor)), d,
               static_cast<float*>(target) + i);
  }
#if HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86  // others convert in software, not all alike
  const hn::Rebind<hwy::float16_t, Floats> d_half;
  for (; dtype == DType::f16 && i + kLanes <= n; i += kLanes) {
    const Vector x = hn::Mul(hn::LoadU(d, source + i), hn::Set(d, factor));
    hn::StoreU(hn::DemoteTo(d_half, x), d_half, static_cast<hwy::float16_t*>(target) + i);
  }
#endif
  for (; i < n; ++i) store_f32(target, dtype, i, factor * source[i]);
}

inline void add(const float* source, std::int64_t n, float factor, float* target) {
  const Floats d;
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(hn::MulAdd(hn::LoadU(d, source + i), hn::Set(d, factor), hn::LoadU(d, target + i)),
               d, target + i);
  }
  for (; i < n; ++i)
    target[i] =
        hn::GetLane(hn::MulAdd(hn::Set(d, source[i]), hn::Set(d, factor), hn::Set(d, target[i])));
}

inline TileOps make_tile_ops() {
  return {&multiply, &score, &softmax, &gradient, &transpose, &widen, &narrow, &add};
}

}  // namespace HWY_NAMESPACE
}  // namespace annulus::attn::cpu
HWY_AFTER_NAMESPACE();

#endif  // include guard, one pass for each instruction set
