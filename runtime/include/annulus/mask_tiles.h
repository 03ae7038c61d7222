#pragma once

#include <annulus/export.h>
#include <annulus/problem.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace annulus {

/// Key tiles [begin, end) of one row of tiles that stand alike: every pair inside is unmasked
/// (full), or some are. What is in no run is empty.
struct TileRun {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  bool full = false;
  bool operator==(const TileRun&) const = default;
};

struct TileCounts {
  std::int64_t full = 0;
  std::int64_t partial = 0;
  std::int64_t empty = 0;
  bool operator==(const TileCounts&) const = default;
};

/// The mask of one head of one batch element, cut into tiles from position 0 on; the last ones end
/// at the tensor's edge. Exact, and no pair is visited: a row of tiles costs what its bands cost.
class ANNULUS_API MaskTiles {
 public:
  /// Throws InvalidArgument for a problem that cannot be or a tile below 1.
  MaskTiles(const Problem& problem, std::int64_t tile_q, std::int64_t tile_k);

  std::int64_t rows() const;     ///< of tiles
  std::int64_t columns() const;  ///< of tiles

  /// Ascending, disjoint, neighbours of one kind joined. Thread-safe.
  std::vector<TileRun> runs(std::int64_t row) const;
  TileCounts count() const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace annulus
