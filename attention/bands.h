#pragma once

#include <annulus/problem.h>

#include <array>
#include <cstdint>
#include <vector>

namespace annulus::attn {

/// A bound that moves with the row: at(r) = base + step * r, r counted from the first row.
struct Affine {
  std::int64_t base = 0;
  std::int64_t step = 0;

  std::int64_t at(std::int64_t row) const { return base + step * row; }
  bool operator==(const Affine&) const = default;
};

/// Keys [lo, hi) of each row.
struct AffineInterval {
  Affine lo;
  Affine hi;
  bool operator==(const AffineInterval&) const = default;
};

/// Query positions [begin, end) whose intervals move evenly: `count` (0, 1, 2) of them, ascending,
/// disjoint, not adjacent, nonempty in every row, within [0, seq_kv). Steps are 0 or 1.
struct Band {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  int count = 0;
  std::array<AffineInterval, 2> intervals{};

  std::int64_t rows() const { return end - begin; }
};

/// A mask as bands that cover [0, seq) in order. This is what a mask means; rows, tiles and pair
/// counts derive from it. `problem` must be resolved. Throws Unsupported where a row would see more
/// than two intervals.
std::vector<Band> compile_bands(const Problem& problem);

/// Unmasked pairs of one head of one batch element, of query positions [begin, end).
std::int64_t count_pairs(const std::vector<Band>& bands, std::int64_t begin, std::int64_t end);

}  // namespace annulus::attn
