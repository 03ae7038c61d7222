#pragma once

#include "moe/kernels/cuda/device/packs.cuh"
#include "moe/kernels/cuda/device/warp.cuh"
#include "moe/kernels/params.h"

#include <cstdint>

// Gates of the expert MLPs, a block a row. Backward may write over `hidden`: a thread reads what it
// writes before it does. The gradient of the row's weight is a sum in one order.
namespace annulus::moe::cuda {

inline constexpr int kGateThreads = 128;
inline constexpr int kGateWarps = kGateThreads / kWarp;

struct GateShared {
  float dots[kGateWarps];
};

/// A gate of one element, and its derivatives by gate and up. gelu's only input is `up`.
struct Gate {
  float value, by_gate, by_up;
};

__device__ inline Gate swiglu_of(float gate, float up) {
  const float s = 1.0F / (1.0F + expf(-gate));
  const float silu = gate * s;
  return {silu * up, up * (s * (1.0F + gate * (1.0F - s))), silu};
}

__device__ inline Gate gelu_of(float x) {
  const float phi = 0.5F * erfcf(x * -0.70710678118654752F);
  const float density = expf(-0.5F * x * x) * 0.398942280401F;  // 1 / sqrt(2 pi)
  return {x * phi, 0.0F, phi + x * density};
}

__device__ inline std::int64_t hidden_stride(const ActivateParams& p) {
  return p.activation == Activation::swiglu ? 2 * p.ffn : p.ffn;
}

template <int kWidth>
struct GateInputs {
  Floats<kWidth> gate, up;
};

template <typename T, int kWidth>
__device__ GateInputs<kWidth> load_gate(const ActivateParams& p, std::int64_t row, std::int64_t i) {
  const bool gated = p.activation == Activation::swiglu;
  const T* hidden = static_cast<const T*>(p.hidden) + row * hidden_stride(p);
  GateInputs<kWidth> in{};
  if (gated) in.gate = load_pack<T, kWidth>(hidden, i);
  in.up = load_pack<T, kWidth>(hidden + (gated ? p.ffn : 0), i);
  return in;
}

__device__ inline Gate gate_of(const ActivateParams& p, float gate, float up) {
  return p.activation == Activation::swiglu ? swiglu_of(gate, up) : gelu_of(up);
}

template <typename T, int kWidth>
__device__ void activate_row(const ActivateParams& p, std::int64_t row) {
  const float weight = p.weights != nullptr ? p.weights[row] : 1.0F;
  T* activated = static_cast<T*>(p.activated) + row * p.ffn;
  for (std::int64_t i = static_cast<int>(threadIdx.x); i < p.ffn / kWidth; i += kGateThreads) {
    const auto in = load_gate<T, kWidth>(p, row, i);
    Floats<kWidth> out;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      out.v[j] = weight * gate_of(p, in.gate.v[j], in.up.v[j]).value;
    }
    store_pack<T, kWidth>(activated, i, out);
  }
}

/// Sum over the block, known to thread 0.
__device__ inline float sum_block(float value, GateShared& shared) {
  const float warp = sum_lanes(value);
  if (lane_id() == 0) shared.dots[warp_id()] = warp;
  __syncthreads();
  float sum = 0.0F;
  for (int w = 0; w < kGateWarps; ++w) sum += shared.dots[w];
  return sum;
}

template <typename T, int kWidth>
__device__ void activate_row_backward(const ActivateParams& p, GateShared& shared,
                                      std::int64_t row) {
  const bool gated = p.activation == Activation::swiglu;
  const float weight = p.weights != nullptr ? p.weights[row] : 1.0F;
  T* activated = static_cast<T*>(p.activated) + row * p.ffn;
  const T* dactivated = static_cast<const T*>(p.dactivated) + row * p.ffn;
  T* dhidden = static_cast<T*>(p.dhidden) + row * hidden_stride(p);
  float dot = 0.0F;
  for (std::int64_t i = static_cast<int>(threadIdx.x); i < p.ffn / kWidth; i += kGateThreads) {
    const auto in = load_gate<T, kWidth>(p, row, i);
    const auto da = load_pack<T, kWidth>(dactivated, i);
    Floats<kWidth> out, dgate, dup;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const Gate gate = gate_of(p, in.gate.v[j], in.up.v[j]);
      dot += da.v[j] * gate.value;
      out.v[j] = weight * gate.value;
      dgate.v[j] = weight * da.v[j] * gate.by_gate;
      dup.v[j] = weight * da.v[j] * gate.by_up;
    }
    store_pack<T, kWidth>(activated, i, out);
    if (gated) store_pack<T, kWidth>(dhidden, i, dgate);
    store_pack<T, kWidth>(dhidden + (gated ? p.ffn : 0), i, dup);
  }
  if (p.dweights == nullptr) return;
  const float sum = sum_block(dot, shared);
  if (threadIdx.x == 0) p.dweights[row] = sum;
}

}  // namespace annulus::moe::cuda
