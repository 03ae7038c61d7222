#pragma once

#include <annulus/tensor.h>

#include <cstdint>

// The vector arithmetic of the CPU kernels, one table for each instruction set. Tiles of scores lie
// [key][row]: a vector holds one key's score for neighbouring query rows, so that max and sum over
// keys are plain vector operations, a lane never meets another row, and no size but the row count
// needs padding.
namespace annulus::attn::cpu {

inline constexpr std::int64_t kRows = 64;  ///< query rows of a block: 4 AVX-512 vectors
inline constexpr std::int64_t kKeys =
    128;                                  ///< keys of a block: K, V, P and dS of dim 128 fit in L2
inline constexpr std::int64_t kPad = 16;  ///< floats that rows of vectors are padded to

constexpr std::int64_t padded(std::int64_t n) { return (n + kPad - 1) / kPad * kPad; }

/// Elements between rows of `n` floats in the workspace: an odd number of cache lines, so that a
/// walk down a column meets all sets of L1 (at 512 B it would meet one set in eight).
constexpr std::int64_t pitch(std::int64_t n) {
  const std::int64_t lines = padded(n) / kPad;
  return (lines | 1) * kPad;
}

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

/// Products of k with softmax_scale * q become logits, masked.
struct ScoreRule {
  float softcap = 0.0F;             ///< 0: off
  const RowRanges* mask = nullptr;  ///< null: every row sees every key
};

/// One step of the online softmax. In: products in `tile` [keys][kRows]. Out: P there, with
/// row_max, row_sum and the accumulator [dim][kRows] brought to the new maximum.
struct SoftmaxStep {
  ScoreRule rule;
  std::int64_t keys = 0;
  std::int64_t rows = 0;  ///< a multiple of kPad
  std::int64_t dim = 0;
  const float* from = nullptr;  ///< logits, where they lie apart and `rule` has nothing to do
  float* tile = nullptr;
  float* row_max = nullptr;
  float* row_sum = nullptr;
  float* accumulator = nullptr;
};

/// In: products in `tile` [keys][kRows]. Out: logits.
struct ScoreStep {
  ScoreRule rule;
  std::int64_t keys = 0;
  std::int64_t rows = 0;  ///< a multiple of kPad
  float* tile = nullptr;
};

/// In: products in `p`, dO.v in `ds`, both [keys][kRows]. Out: P and dS, by softmax_scale * q.k.
struct GradientStep {
  ScoreRule rule;
  std::int64_t keys = 0;
  std::int64_t rows = 0;  ///< a multiple of kPad
  float* p = nullptr;
  float* ds = nullptr;
  const float* lse = nullptr;  ///< +inf for a row that saw no key
  const float* delta = nullptr;
};

/// to[c][r] = from[r][c] for [rows][columns] of `from`.
struct Transposition {
  std::int64_t rows = 0, columns = 0;
  const float* from = nullptr;
  std::int64_t from_pitch = 0;
  float* to = nullptr;
  std::int64_t to_pitch = 0;
};

struct TileOps {
  void (*multiply)(const Product& product) = nullptr;
  void (*score)(const ScoreStep& step) = nullptr;
  void (*softmax)(const SoftmaxStep& step) = nullptr;
  void (*gradient)(const GradientStep& step) = nullptr;
  void (*transpose)(const Transposition& transposition) = nullptr;
  /// factor * `n` elements of `dtype`, in f32.
  void (*widen)(const void* source, DType dtype, std::int64_t n, float factor,
                float* target) = nullptr;
  /// `n` elements of factor * source, rounded to `dtype`.
  void (*narrow)(const float* source, std::int64_t n, float factor, DType dtype,
                 void* target) = nullptr;
  /// target[i] += factor * source[i].
  void (*add)(const float* source, std::int64_t n, float factor, float* target) = nullptr;
};

/// For the best instruction set of this machine.
TileOps tile_ops();

}  // namespace annulus::attn::cpu
