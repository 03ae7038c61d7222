#pragma once

#include "moe/kernels/params.h"

#include <cstdint>

// The vector arithmetic of the MoE kernels, one table for each instruction set.
namespace annulus::moe::cpu {

inline constexpr std::int64_t kPad = 16;  ///< floats that rows of vectors are padded to

constexpr std::int64_t padded(std::int64_t n) { return (n + kPad - 1) / kPad * kPad; }

/// c[m][n] += sum over k of a[m * a_m + k * a_k] * b[k * b_k + n]: one chain in the order of k that
/// begins with c. `n` is a multiple of kPad.
struct Block {
  std::int64_t m = 0, n = 0, k = 0;
  const float* a = nullptr;
  std::int64_t a_m = 0, a_k = 0;
  const float* b = nullptr;
  std::int64_t b_k = 0;
  float* c = nullptr;
  std::int64_t c_m = 0;
};

/// to[c][r] = from[r][c] for [rows][columns] of `from`.
struct Transposition {
  std::int64_t rows = 0, columns = 0;
  const float* from = nullptr;
  std::int64_t from_pitch = 0;
  float* to = nullptr;
  std::int64_t to_pitch = 0;
};

/// One row of an activation, in f32. Each array has room for padded(ffn); what lies beyond ffn is
/// finite, and zero in `dactivated`.
struct GateRow {
  Activation activation = Activation::swiglu;
  std::int64_t ffn = 0;
  float weight = 1.0F;
  float* gated = nullptr;  ///< swiglu only
  float* up = nullptr;
  float* activated = nullptr;
  float* dactivated = nullptr;
  float* dgated = nullptr;
  float* dup = nullptr;
};

struct BlockOps {
  void (*multiply)(const Block& block) = nullptr;
  void (*transpose)(const Transposition& transposition) = nullptr;
  void (*widen)(const void* source, DType dtype, std::int64_t n, float* target) = nullptr;
  void (*narrow)(const float* source, std::int64_t n, DType dtype, void* target) = nullptr;
  void (*gate)(const GateRow& row) = nullptr;
  /// Returns <dactivated, gate(hidden)>.
  float (*gate_backward)(const GateRow& row) = nullptr;
};

/// For the best instruction set of this machine.
BlockOps block_ops();

}  // namespace annulus::moe::cpu
