#pragma once

#include <annulus/moe_experts.h>
#include <annulus/tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

// What kernels of the expert MLPs compute. They know nothing of ranks, tokens or routing.
namespace annulus::moe {

/// A matrix that is read. Strides in elements; one of the two is 1.
struct Operand {
  const void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t row_stride = 0;
  std::int64_t column_stride = 1;
};

/// A matrix that is written, row-major.
struct Result {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t row_stride = 0;
};

/// c[m][n] = (add ? c : 0) + sum over k of a[m][k] * b[k][n], in f32, rounded once to c's dtype.
/// Each sum is one chain of fused multiply-adds in the order of k that begins with c, whatever the
/// blocking: a row's bits do not depend on how many rows there are, and a sum over rows that comes
/// in parts (`add`) has the bits of the whole. k = 0 writes zeros, or leaves c as it is.
/// `add` wants an f32 result. The chain may go on with a second pair of operands.
struct Product {
  std::int64_t m = 0, n = 0, k = 0;
  Operand a;  ///< [m][k]
  Operand b;  ///< [k][n]
  Result c;   ///< [m][n]
  bool add = false;
  std::int64_t k_more = 0;
  Operand a_more{};  ///< [m][k_more]
  Operand b_more{};  ///< [k_more][n]

  std::int64_t flops() const { return 2 * m * n * (k + k_more); }
};

/// How wide a row of `hidden` is for `ffn` activations: [gate | up] of swiglu, [up] of gelu.
constexpr std::int64_t hidden_width(Activation activation, std::int64_t ffn) {
  return activation == Activation::swiglu ? 2 * ffn : ffn;
}

/// activated[r] = weights[r] * gate(hidden[r]); compact rows of `dtype`.
struct ActivateParams {
  Activation activation = Activation::swiglu;
  DType dtype = DType::f32;
  std::int64_t rows = 0;
  std::int64_t ffn = 0;
  const void* hidden = nullptr;      ///< [rows][hidden_width]
  const float* weights = nullptr;    ///< [rows]; null: all 1
  void* activated = nullptr;         ///< [rows][ffn]
  const void* dactivated = nullptr;  ///< backward: [rows][ffn]
  void* dhidden = nullptr;           ///< backward: [rows][hidden_width]
  float* dweights = nullptr;         ///< backward: [rows], <dactivated, gate(hidden)>; may be null
};

/// out[t] = sum of rows[at[t][slot]] in the order of slots, in f32, plus more[t], rounded once. A
/// place of -1 adds nothing; a token without any row gives zeros, or more[t].
struct SumParams {
  DType dtype = DType::f32;  ///< of rows and out
  std::int64_t tokens = 0;
  std::int64_t k = 0;
  std::int64_t width = 0;
  const std::int64_t* at = nullptr;  ///< [tokens][k]
  const void* rows = nullptr;        ///< compact
  const float* more = nullptr;       ///< [tokens][width]; null: none
  void* out = nullptr;
  std::int64_t out_stride = 0;
};

/// to[to_at[i]] = from[from_at[i]]; null: row i itself. Rows of `bytes`, strides in bytes. Where
/// from_at[i] or to_at[i] is -1 nothing is copied.
struct CopyParams {
  std::int64_t rows = 0;
  std::int64_t bytes = 0;
  const std::int64_t* from_at = nullptr;
  const void* from = nullptr;
  std::int64_t from_stride = 0;
  const std::int64_t* to_at = nullptr;
  void* to = nullptr;
  std::int64_t to_stride = 0;
};

struct LaunchContext {
  int threads = 1;
  /// Called between tiles by the calling thread; may throw. May be empty.
  std::function<void()> poll{};
  std::int64_t* flops = nullptr;  ///< executed FLOPs of products are added here; may be null
  std::span<std::byte> workspace{};
  void* stream = nullptr;   ///< GPUs: cudaStream_t
  void* library = nullptr;  ///< what the kernel's `open` made; for one stream at a time
};

}  // namespace annulus::moe
