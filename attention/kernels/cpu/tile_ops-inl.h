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

/// exp, but a NaN stays one: the library's turns it into 0.
HWY_INLINE Vector exponential(Vector x) {
  const Floats d;
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, x));
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

/// Logits of one vector of rows; slope_of gives d logit / d scaled product.
struct Logits {
  explicit Logits(const ScoreRule& rule_in, std::int64_t row)
      : rule(rule_in), visible(rule_in.mask != nullptr ? *rule_in.mask : kNoRanges, row) {}

  HWY_INLINE Vector operator()(Vector product, std::int64_t key, Vector& slope) const {
    const Floats d;
    Vector score = hn::Mul(product, hn::Set(d, rule.scale));
    if (rule.softcap > 0.0F) {
      const Vector cap = hn::Set(d, rule.softcap);
      const Vector t = hn::Tanh(d, hn::Div(score, cap));
      score = hn::Mul(cap, t);
      slope = hn::NegMulAdd(t, t, hn::Set(d, 1.0F));
    }
    return rule.mask != nullptr ? visible.mask(score, key) : score;
  }

  const ScoreRule& rule;
  VisibleKeys visible;
};

inline void softmax_column(const SoftmaxStep& s, std::int64_t row) {
  const Floats d;
  const Logits logits(s.rule, row);
  float* HWY_RESTRICT tile = s.tile + row;
  const Vector old_max = hn::LoadU(d, s.row_max + row);
  Vector new_max = old_max;
  Vector slope = hn::Zero(d);
  for (std::int64_t key = 0; key < s.keys; ++key) {
    const Vector score = logits(hn::LoadU(d, tile + key * kRows), key, slope);
    hn::StoreU(score, d, tile + key * kRows);
    new_max = hn::Max(new_max, score);
  }
  // A row that has seen no key yet keeps -inf, but -inf - -inf would be NaN.
  const auto unseen = hn::Eq(new_max, hn::Set(d, -kInfinity));
  const Vector shift = hn::IfThenZeroElse(unseen, new_max);
  const Vector rescale = exponential(hn::Sub(old_max, shift));
  Vector sum = hn::Zero(d);
  for (std::int64_t key = 0; key < s.keys; ++key) {
    const Vector p = exponential(hn::Sub(hn::LoadU(d, tile + key * kRows), shift));
    hn::StoreU(p, d, tile + key * kRows);
    sum = hn::Add(sum, p);
  }
  hn::StoreU(new_max, d, s.row_max + row);
  hn::StoreU(hn::MulAdd(hn::LoadU(d, s.row_sum + row), rescale, sum), d, s.row_sum + row);
  // Times one changes no bit, so leaving it out does not either.
  if (hn::AllTrue(d, hn::Eq(rescale, hn::Set(d, 1.0F)))) return;
  float* HWY_RESTRICT out = s.accumulator + row;
  for (std::int64_t i = 0; i < s.dim; ++i) {
    hn::StoreU(hn::Mul(hn::LoadU(d, out + i * kRows), rescale), d, out + i * kRows);
  }
}

inline void softmax(const SoftmaxStep& step) {
  for (std::int64_t row = 0; row < step.rows; row += kLanes) softmax_column(step, row);
}

inline void gradient_column(const GradientStep& s, std::int64_t row) {
  const Floats d;
  const Logits logits(s.rule, row);
  const Vector lse = hn::LoadU(d, s.lse + row);
  const Vector delta = hn::LoadU(d, s.delta + row);
  const Vector scale = hn::Set(d, s.rule.scale);
  for (std::int64_t key = 0; key < s.keys; ++key) {
    float* HWY_RESTRICT p_at = s.p + key * kRows + row;
    float* HWY_RESTRICT ds_at = s.ds + key * kRows + row;
    Vector slope = hn::Set(d, 1.0F);
    const Vector logit = logits(hn::LoadU(d, p_at), key, slope);
    const Vector p = exponential(hn::Sub(logit, lse));
    const Vector ds = hn::Mul(p, hn::Sub(hn::LoadU(d, ds_at), delta));
    hn::StoreU(p, d, p_at);
    hn::StoreU(hn::Mul(ds, hn::Mul(slope, scale)), d, ds_at);
  }
}

inline void gradient(const GradientStep& step) {
  for (std::int64_t row = 0; row < step.rows; row += kLanes) gradient_column(step, row);
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
      std::copy_n(static_cast<const float*>(source), n, target);
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

inline TileOps make_tile_ops() { return {&multiply, &softmax, &gradient, &widen}; }

}  // namespace HWY_NAMESPACE
}  // namespace annulus::attn::cpu
HWY_AFTER_NAMESPACE();

#endif  // include guard, one pass for each instruction set
