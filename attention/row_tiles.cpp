// Tiles of a row table.

#include "attention/row_pieces.h"

#include <algorithm>
#include <set>
#include <utility>

namespace annulus::attn {
namespace {

/// Dense segments by position, with the running sum of their lengths.
class SortedKeys {
 public:
  explicit SortedKeys(std::vector<TokenRange> keys) : keys_(std::move(keys)) {
    std::sort(keys_.begin(), keys_.end(),
              [](const TokenRange& a, const TokenRange& b) { return a.begin < b.begin; });
    for (const TokenRange& k : keys_) before_.push_back(before_.back() + k.count);
  }

  /// Keys in tiles of which some position is seen. `seen` is ascending and disjoint.
  std::int64_t in_touched_tiles(const IndexRanges& seen, std::int64_t tile_k) const {
    std::int64_t sum = 0;
    std::size_t done = 0;  // segments below are counted
    for (std::size_t s = 0; s < seen.size(); ++s) {
      std::size_t k = std::max(done, first_ending_after(seen[s].begin));
      while (k < keys_.size() && keys_[k].begin < seen[s].end) {
        const std::size_t inside = first_ending_after(seen[s].end);
        if (keys_[k].begin >= seen[s].begin && inside > k) {
          sum += before_[inside] - before_[k];
          k = inside;
        } else {
          sum += touched_in(keys_[k], seen, s, tile_k);
          ++k;
        }
      }
      done = k;
    }
    return sum;
  }

 private:
  /// The first segment that ends behind `position`.
  std::size_t first_ending_after(std::int64_t position) const {
    return static_cast<std::size_t>(
        std::partition_point(keys_.begin(), keys_.end(),
                             [&](const TokenRange& k) { return k.begin + k.count <= position; }) -
        keys_.begin());
  }

  /// Keys of a segment that what is seen, from `first` on, cuts.
  static std::int64_t touched_in(const TokenRange& k, const IndexRanges& seen, std::size_t first,
                                 std::int64_t tile_k) {
    const KeyTiles tiles(k, tile_k);
    IndexRanges touched;
    for (std::size_t s = first; s < seen.size() && seen[s].begin < k.begin + k.count; ++s) {
      const std::int64_t begin = index_of(k, seen[s].begin);
      const std::int64_t end = index_of(k, seen[s].end);
      if (begin < end) touched.push_back({tiles.tile_of(begin), tiles.tile_of(end - 1) + 1});
    }
    join(touched);
    std::int64_t sum = 0;
    for (const IndexRange t : touched) sum += tiles.end(t.end - 1) - tiles.begin(t.begin);
    return sum;
  }

  std::vector<TokenRange> keys_;
  std::vector<std::int64_t> before_{0};
};

bool is_full(const std::vector<IndexRanges>& pieces, std::int64_t begin, std::int64_t end) {
  return std::all_of(pieces.begin(), pieces.end(), [&](const IndexRanges& piece) {
    return std::any_of(piece.begin(), piece.end(),
                       [&](IndexRange r) { return r.begin <= begin && end <= r.end; });
  });
}

/// Calls fn(first key, last key, full) for each tile of a piece with fixed keys. The keys that its
/// rows see with one interval overlap no other interval's, so that tiles are disjoint.
template <typename Fn>
void for_tiles_cut_to_keys(const RowPiece& piece, const TokenRange& keys, const KeyTiles& tiles,
                           Fn&& fn) {
  for (const AffineInterval& x : piece.all_intervals()) {
    const std::int64_t begin = index_of(keys, x.lo.base);
    const std::int64_t end = index_of(keys, x.hi.at(piece.rows - 1));
    const IndexRange full{index_of(keys, x.lo.at(piece.rows - 1)), index_of(keys, x.hi.base)};
    for (std::int64_t at = begin; at < end;) {
      const std::int64_t next = std::min(end, tiles.end(tiles.tile_of(at)));
      fn(at, next, full.begin <= at && next <= full.end);
      at = next;
    }
  }
}

}  // namespace

/// Calls fn(first row, end, piece) for each query tile: rows of the grid, and where a piece has
/// fixed keys its part of them alone; `piece` is null for the others.
template <typename Fn>
void RowTable::for_query_tiles(std::int64_t tile_q, Fn&& fn) const {
  for (std::int64_t row = 0; row < rows_; row += tile_q) {
    const std::int64_t end = std::min(rows_, row + tile_q);
    std::int64_t done = row;
    if (any_fixed_) {
      for_pieces(pieces_, row, end, [&](const RowPiece& piece) {
        if (!piece.fixed) return;
        if (done < piece.row) fn(done, piece.row, nullptr);
        done = piece.row + piece.rows;
        fn(piece.row, done, &piece);
      });
    }
    if (done < end) fn(done, end, nullptr);
  }
}

void RowTable::tiles(const TileGrid& grid, std::int32_t segment, const TokenRange& keys,
                     std::vector<Tile>& out) const {
  if (keys.count == 0) return;
  const KeyTiles key_tiles(keys, grid.tile_k);
  for_query_tiles(grid.tile_q, [&](std::int64_t row, std::int64_t end, const RowPiece* piece) {
    const auto add = [&](std::int64_t first, std::int64_t last, bool full) {
      out.push_back({static_cast<std::int32_t>(row), static_cast<std::int32_t>(end - row), segment,
                     static_cast<std::int32_t>(last - first), first, full});
    };
    if (piece != nullptr) return for_tiles_cut_to_keys(*piece, keys, key_tiles, add);
    IndexRanges touched;
    std::vector<IndexRanges> full;
    for_pieces(pieces_, row, end, [&](const RowPiece& part) {
      collect_touched(part, keys, key_tiles, touched);
      full.push_back(full_ranges(part, keys));
    });
    join(touched);
    for (const IndexRange range : touched) {
      for (std::int64_t t = range.begin; t < range.end; ++t) {
        const std::int64_t first = key_tiles.begin(t);
        const std::int64_t last = key_tiles.end(t);
        add(first, last, is_full(full, first, last));
      }
    }
  });
}

std::int64_t RowTable::most_query_tiles(std::int64_t tile_q) const {
  std::int64_t count = 0;
  for_query_tiles(tile_q, [&](std::int64_t, std::int64_t, const RowPiece*) { ++count; });
  return count;
}

std::int64_t RowTable::most_key_tiles(const TileGrid& grid, const TokenRange& keys) const {
  if (keys.count == 0) return 0;
  const std::int64_t of_grid = KeyTiles(keys, grid.tile_k).tile_of(keys.count - 1) + 1;
  if (!any_fixed_) return of_grid;
  // Where pieces have fixed keys, intervals cut tiles of the grid where they begin.
  std::set<std::int64_t> begins;
  std::set<const void*> seen;  // fixed keys, which pieces share
  for_query_tiles(grid.tile_q, [&](std::int64_t, std::int64_t, const RowPiece* piece) {
    if (piece == nullptr) return;
    for (int i = 0; i < piece->count; ++i) {
      begins.insert(index_of(keys, piece->intervals[static_cast<std::size_t>(i)].lo.base));
    }
    if (!seen.insert(piece->fixed.get()).second) return;
    for (const KeyInterval& k : piece->fixed_keys()) begins.insert(index_of(keys, k.begin));
  });
  return of_grid + static_cast<std::int64_t>(begins.size());
}

std::int64_t RowTable::tile_pairs(const TileGrid& grid, const TokenRange& keys) const {
  if (keys.count == 0) return 0;
  const KeyTiles key_tiles(keys, grid.tile_k);
  std::int64_t sum = 0;
  IndexRanges touched;
  for_query_tiles(grid.tile_q, [&](std::int64_t row, std::int64_t end, const RowPiece* piece) {
    if (piece != nullptr) {
      for_tiles_cut_to_keys(*piece, keys, key_tiles,
                            [&](std::int64_t first, std::int64_t last, bool) {
                              sum += (end - row) * (last - first);
                            });
      return;
    }
    touched.clear();
    for_pieces(pieces_, row, end,
               [&](const RowPiece& part) { collect_touched(part, keys, key_tiles, touched); });
    join(touched);
    for (const IndexRange range : touched) {
      sum += (end - row) * (key_tiles.end(range.end - 1) - key_tiles.begin(range.begin));
    }
  });
  return sum;
}

std::int64_t RowTable::tile_pairs(const TileGrid& grid, std::vector<TokenRange> keys) const {
  std::erase_if(keys, [](const TokenRange& k) { return k.count == 0; });
  const bool dense = std::all_of(keys.begin(), keys.end(), [](auto& k) { return k.stride == 1; });
  std::int64_t sum = 0;
  // Stripes overlap each other's span: no order to use. Fixed keys have tiles of their own.
  if (!dense || keys.size() < 4 || any_fixed_) {
    for (const TokenRange& k : keys) sum += tile_pairs(grid, k);
    return sum;
  }
  const SortedKeys sorted(std::move(keys));
  IndexRanges seen;
  for (std::int64_t row = 0; row < rows_; row += grid.tile_q) {
    const std::int64_t end = std::min(rows_, row + grid.tile_q);
    seen.clear();
    for_pieces(pieces_, row, end, [&](const RowPiece& piece) { collect_seen(piece, seen); });
    join(seen);
    sum += (end - row) * sorted.in_touched_tiles(seen, grid.tile_k);
  }
  return sum;
}

KeyTiles::KeyTiles(const TokenRange& keys, std::int64_t tile_k)
    : count(keys.count), size(tile_k), anchor((keys.begin / keys.stride) % tile_k) {}

std::int64_t KeyTiles::begin(std::int64_t tile) const {
  return std::max(std::int64_t{0}, tile * size - anchor);
}

std::int64_t KeyTiles::end(std::int64_t tile) const {
  return std::min(count, (tile + 1) * size - anchor);
}

}  // namespace annulus::attn
