#pragma once

#include "attention/bands.h"
#include "attention/kernels/params.h"

#include <annulus/layout.h>

#include <cstdint>
#include <span>
#include <vector>

namespace annulus::attn {

/// Consecutive rows of a row table whose key intervals move evenly. `r` counts from the piece's
/// first row. All rows see `fixed` beside the intervals.
struct RowPiece {
  std::int64_t row = 0;
  std::int64_t rows = 0;
  int count = 0;
  std::array<AffineInterval, 2> intervals{};
  FixedKeys fixed{};

  std::span<const KeyInterval> fixed_keys() const {
    return fixed ? std::span<const KeyInterval>(*fixed) : std::span<const KeyInterval>();
  }
  /// The intervals and the fixed keys, ascending.
  std::vector<AffineInterval> all_intervals() const;
};

/// The size of a kernel's tiles.
struct TileGrid {
  std::int64_t tile_q = 64;
  std::int64_t tile_k = 64;
};

/// The query rows of one launch order with what each may see: bands of the mask, cut by the token
/// ranges that a rank (or group) holds. Answers, exactly, how many pairs a key segment has and how
/// each tile stands. Cost grows with pieces, not with pairs.
class RowTable {
 public:
  RowTable(const std::vector<Band>& bands, std::span<const TokenRange> rows);

  std::int64_t rows() const { return rows_; }
  const std::vector<RowPiece>& pieces() const { return pieces_; }

  /// Unmasked pairs of all rows with the keys at `keys`.
  std::int64_t pairs(const TokenRange& keys) const;

  /// Key positions that at least one row sees, as ascending, disjoint, not adjacent ranges.
  std::vector<KeyInterval> needed_keys() const;

  /// Appends the full and partial tiles of all rows with one segment, key tiles anchored at
  /// position 0. Sorted by (row, key). Rows with fixed keys share no tile with others, and each of
  /// their intervals has tiles of its own, cut to it, so that no tile needs a third interval.
  void tiles(const TileGrid& grid, std::int32_t segment, const TokenRange& keys,
             std::vector<Tile>& out) const;

  /// Some of those tiles are cut to what rows see, not to the grid.
  bool cut_to_keys() const { return any_fixed_; }

  /// At most so many query tiles, and key tiles of one segment, are in those tiles. What is cheap
  /// to say without them: rows and keys that no tile holds are counted too.
  std::int64_t most_query_tiles(std::int64_t tile_q) const;
  std::int64_t most_key_tiles(const TileGrid& grid, const TokenRange& keys) const;

  /// Pairs in those tiles, masked ones included: what a kernel executes.
  std::int64_t tile_pairs(const TileGrid& grid, const TokenRange& keys) const;

  /// The same over many segments, in any order. Sorted once, a query tile then looks only at the
  /// segments where what it sees begins or ends: thousands of them cost little.
  std::int64_t tile_pairs(const TileGrid& grid, std::vector<TokenRange> keys) const;

  /// The intervals, row by row, without the fixed keys: those lie in full tiles.
  std::vector<RowIntervals> intervals() const;

 private:
  template <typename Fn>
  void for_query_tiles(std::int64_t tile_q, Fn&& fn) const;

  std::int64_t rows_ = 0;
  std::vector<RowPiece> pieces_;  ///< by row; rows that see no key have count 0
  bool any_fixed_ = false;
};

/// First local key index of the tile that holds index `t`, and so on: tiles of `keys` are cut where
/// the position is a multiple of tile_k * stride.
struct KeyTiles {
  KeyTiles(const TokenRange& keys, std::int64_t tile_k);

  std::int64_t tile_of(std::int64_t index) const { return (index + anchor) / size; }
  std::int64_t begin(std::int64_t tile) const;
  std::int64_t end(std::int64_t tile) const;

  std::int64_t count = 0;
  std::int64_t size = 1;
  std::int64_t anchor = 0;
};

}  // namespace annulus::attn
