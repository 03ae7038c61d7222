#pragma once

#include <cstdint>

// What the grouped product's kernel is told, by value.
namespace annulus::moe::sm90 {

inline constexpr int kMostGroups = 256;

/// Rows of one expert; no expert without rows has one.
struct Group {
  std::int32_t first;   ///< row of the left operand and of the result
  std::int32_t rows;    ///< at least 1
  std::int32_t expert;  ///< matrix of the right operand
};

/// c[row][n] = sum over k of a[row][k] * b[expert of row][k][n], bf16, summed in f32.
struct Grouped {
  std::int32_t groups = 0;
  std::int32_t n = 0;       ///< a multiple of 8
  std::int32_t k = 0;       ///< at least 1
  std::int32_t band = 0;    ///< row tiles that all columns are walked for together
  void* c = nullptr;        ///< row 0, 16-byte aligned
  std::int64_t stride = 0;  ///< of c, elements, a multiple of 8
  Group table[kMostGroups];
};

/// A form of the kernel. A tile is 64 * groups rows by `columns`; a stage holds 64 of k of both.
struct Tuning {
  int groups = 2;  ///< consumer warpgroups
  int columns = 256;
  int stages = 4;

  friend bool operator==(const Tuning&, const Tuning&) = default;
};
constexpr int tile_rows_of(Tuning t) { return 64 * t.groups; }

/// Forms that are compiled (groups, columns, stages); the first is the default.
#define ANNULUS_GROUPED_TUNINGS(X) X(2, 256, 4) X(2, 256, 3) X(2, 192, 5)
#define ANNULUS_GROUPED_TUNING(...) ::annulus::moe::sm90::Tuning{__VA_ARGS__},
inline constexpr Tuning kTunings[] = {ANNULUS_GROUPED_TUNINGS(ANNULUS_GROUPED_TUNING)};
#undef ANNULUS_GROUPED_TUNING

}  // namespace annulus::moe::sm90
