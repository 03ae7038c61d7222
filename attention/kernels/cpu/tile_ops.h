#pragma once

#include <annulus/tensor.h>

#include <cstdint>

// The vector arithmetic of flash2, one table for each instruction set. Tiles of scores lie
// [key][row]: a vector holds one key's score for neighbouring query rows, so that max and sum over
// keys are plain vector operations, a lane never meets another row, and no size but the row count
// needs padding.
namespace annulus::attn::cpu {

inline constexpr std::int64_t kRows = 64;  ///< query rows of a block: 4 AVX-512 vectors
inline constexpr std::int64_t kKeys =
    128;                                  ///< keys of a block: K, V, P and dS of dim 128 fit in L2
inline constexpr std::int64_t kPad = 16;  ///< floats that rows of vectors are padded to

constexpr std::int64_t padded(std::int64_t n) { return (n + kPad - 1) / kPad * kPad; }

/// c[m][n] = (add ? c : 0) + sum over k of a[m * a_m + k * a_k] * b[k * b_k + n]. `n` is a multiple
/// of kPad. Each sum is one chain in the order of k, whatever the blocking.
struct Product {
  std::int64_t m = 0, n = 0, k = 0;
  const float* a = nullptr;
  std::int64_t a_m = 0, a_k = 0;
  const float* b = nullptr;
  std::int64_t b_k = 0;
  float* c = nullptr;
  std::int64_t c_m = 0;
  bool add = false;
};

/// Which keys of a block each row sees: up to two ranges of key indices.
struct RowRanges {
  std::int32_t begin[2][kRows];
  std::int32_t end[2][kRows];
};

/// Raw products q.k become scores, masked; scores become logits.
struct ScoreRule {
  float scale = 1.0F;
  float softcap = 0.0F;             ///< 0: off
  const RowRanges* mask = nullptr;  ///< null: every row sees every key
};

/// One step of the online softmax. In: raw products in `tile` [keys][kRows]. Out: P there, with
/// row_max, row_sum and the accumulator [dim][kRows] brought to the new maximum.
struct SoftmaxStep {
  ScoreRule rule;
  std::int64_t keys = 0;
  std::int64_t rows = 0;  ///< a multiple of kPad
  std::int64_t dim = 0;
  float* tile = nullptr;
  float* row_max = nullptr;
  float* row_sum = nullptr;
  float* accumulator = nullptr;
};

/// In: raw products in `p`, dO.v in `ds`, both [keys][kRows]. Out: P and softmax_scale * dS.
struct GradientStep {
  ScoreRule rule;
  std::int64_t keys = 0;
  std::int64_t rows = 0;  ///< a multiple of kPad
  float* p = nullptr;
  float* ds = nullptr;
  const float* lse = nullptr;  ///< +inf for a row that saw no key
  const float* delta = nullptr;
};

struct TileOps {
  void (*multiply)(const Product& product) = nullptr;
  void (*softmax)(const SoftmaxStep& step) = nullptr;
  void (*gradient)(const GradientStep& step) = nullptr;
  /// `n` elements of `dtype` to f32.
  void (*widen)(const void* source, DType dtype, std::int64_t n, float* target) = nullptr;
};

/// For the best instruction set of this machine.
TileOps tile_ops();

}  // namespace annulus::attn::cpu
