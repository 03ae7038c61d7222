// Gates of the expert MLPs, in the namespace of the instruction set being compiled.
#if defined(ANNULUS_MOE_GATE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ANNULUS_MOE_GATE_INL_H
#undef ANNULUS_MOE_GATE_INL_H
#else
#define ANNULUS_MOE_GATE_INL_H
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "moe/kernels/cpu/block_ops-inl.h"
#include "moe/kernels/cpu/block_ops.h"

#include <cmath>
#include <cstddef>
#include <numbers>

HWY_BEFORE_NAMESPACE();
namespace annulus::moe::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// 1 / (1 + exp(-x)). hn::Exp serves up to 104; beyond 88 the result is below 1e-38 anyway. In this
/// order Min lets a NaN pass.
HWY_INLINE Vector sigmoid(Vector x) {
  const Floats d;
  const Vector one = hn::Set(d, 1.0F);
  const Vector e = hn::Exp(d, hn::Min(hn::Set(d, 88.0F), hn::Neg(x)));
  return hn::Div(one, hn::Add(one, e));
}

inline void swiglu(const GateRow& r) {
  const Floats d;
  const Vector weight = hn::Set(d, r.weight);
  for (std::int64_t i = 0; i < r.ffn; i += kLanes) {
    const Vector g = hn::LoadU(d, r.gated + i);
    const Vector a = hn::Mul(hn::Mul(g, sigmoid(g)), hn::LoadU(d, r.up + i));
    hn::StoreU(hn::Mul(weight, a), d, r.activated + i);
  }
}

inline float swiglu_backward(const GateRow& r) {
  const Floats d;
  const Vector weight = hn::Set(d, r.weight);
  const Vector one = hn::Set(d, 1.0F);
  Vector dot = hn::Zero(d);
  for (std::int64_t i = 0; i < r.ffn; i += kLanes) {
    const Vector g = hn::LoadU(d, r.gated + i);
    const Vector up = hn::LoadU(d, r.up + i);
    const Vector dz = hn::LoadU(d, r.dactivated + i);
    const Vector s = sigmoid(g);
    const Vector silu = hn::Mul(g, s);
    const Vector a = hn::Mul(silu, up);
    dot = hn::MulAdd(dz, a, dot);
    hn::StoreU(hn::Mul(weight, a), d, r.activated + i);
    const Vector da = hn::Mul(weight, dz);
    // d silu = s * (1 + g * (1 - s))
    const Vector slope = hn::Mul(s, hn::MulAdd(g, hn::Sub(one, s), one));
    hn::StoreU(hn::Mul(hn::Mul(da, up), slope), d, r.dgated + i);
    hn::StoreU(hn::Mul(da, silu), d, r.dup + i);
  }
  return hn::GetLane(hn::SumOfLanes(d, dot));
}

/// The exact form wants erf, for which there is no vector function; the products dwarf it.
inline float gelu(const GateRow& r, bool backward) {
  float dot = 0.0F;
  for (std::int64_t i = 0; i < r.ffn; ++i) {
    const float x = r.up[i];
    const float phi = 0.5F * std::erfc(-x / std::numbers::sqrt2_v<float>);
    const float a = x * phi;
    if (backward) {
      const float density = std::exp(-0.5F * x * x) * 0.398942280401F;  // 1 / sqrt(2 pi)
      dot += r.dactivated[i] * a;
      r.dup[i] = r.weight * r.dactivated[i] * (phi + x * density);
    }
    r.activated[i] = r.weight * a;
  }
  return dot;
}

inline void gate(const GateRow& row) {
  if (row.activation == Activation::swiglu) return swiglu(row);
  gelu(row, false);
}

inline float gate_backward(const GateRow& row) {
  return row.activation == Activation::swiglu ? swiglu_backward(row) : gelu(row, true);
}

}  // namespace HWY_NAMESPACE
}  // namespace annulus::moe::cpu
HWY_AFTER_NAMESPACE();

#endif  // include guard, one pass for each instruction set
