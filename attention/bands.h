#pragma once

#include <annulus/problem.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>
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

/// Key intervals, ascending, that many bands and pieces share; null: none.
using FixedKeys = std::shared_ptr<const std::vector<KeyInterval>>;

/// Query positions [begin, end) whose intervals move evenly: `count` (0, 1, 2) of them, ascending,
/// disjoint, not adjacent, nonempty in every row, within [0, seq_kv). Steps are 0 or 1.
/// Rows that see more than two intervals see `fixed` too, all of them the same; the intervals are
/// then those that move, and nothing overlaps or touches.
struct Band {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  int count = 0;
  std::array<AffineInterval, 2> intervals{};
  FixedKeys fixed{};

  std::int64_t rows() const { return end - begin; }
  std::span<const KeyInterval> fixed_keys() const {
    return fixed ? std::span<const KeyInterval>(*fixed) : std::span<const KeyInterval>();
  }
};

/// A mask as bands that cover [0, seq) in order. This is what a mask means; rows, tiles and pair
/// counts derive from it. `problem` must be resolved. Throws Unsupported for a mask in so many
/// pieces that it would not fit memory.
std::vector<Band> compile_bands(const Problem& problem);

/// Unmasked pairs of one head of one batch element, of query positions [begin, end).
std::int64_t count_pairs(const std::vector<Band>& bands, std::int64_t begin, std::int64_t end);

}  // namespace annulus::attn
