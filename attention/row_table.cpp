#include "attention/row_table.h"

#include <algorithm>
#include <utility>

namespace annulus::attn {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return a >= 0 ? (a + b - 1) / b : -(-a / b);
}

/// First local index of `keys` whose position is >= `position`, within [0, count].
std::int64_t index_of(const TokenRange& keys, std::int64_t position) {
  const std::int64_t away = position - keys.begin;
  return std::clamp(keys.stride == 1 ? away : ceil_div(away, keys.stride), std::int64_t{0},
                    keys.count);
}

/// Sum over r in [0, rows) of clamp(a + b * r, 0, n), b >= 0.
std::int64_t clamped_series(std::int64_t a, std::int64_t b, std::int64_t rows, std::int64_t n) {
  if (b == 0) return rows * std::clamp(a, std::int64_t{0}, n);
  const std::int64_t rise = std::clamp(ceil_div(-a, b), std::int64_t{0}, rows);  // first a+br >= 0
  const std::int64_t top = std::clamp(ceil_div(n - a, b), rise, rows);           // first a+br >= n
  const std::int64_t m = top - rise;
  return m * a + b * ((rise + top - 1) * m / 2) + (rows - top) * n;
}

/// Sum over the rows of a piece of index_of(keys, bound at the row).
std::int64_t sum_of_indices(Affine bound, std::int64_t rows, const TokenRange& keys) {
  if (bound.step % keys.stride == 0) {
    return clamped_series(ceil_div(bound.base - keys.begin, keys.stride), bound.step / keys.stride,
                          rows, keys.count);
  }
  std::int64_t sum = 0;
  for (std::int64_t r = 0; r < rows; ++r) sum += index_of(keys, bound.at(r));
  return sum;
}

/// True if the keys seen by neighbouring rows join, so that the union over the rows of a piece is
/// one interval.
bool rows_join(const AffineInterval& i, std::int64_t rows) {
  if (rows < 2) return true;
  return i.lo.at(1) <= i.hi.at(0) && i.lo.at(rows - 1) <= i.hi.at(rows - 2);
}

/// True if "every row covers the tile with one of its intervals" can be judged interval by
/// interval: one of the two does not move.
bool rows_agree(const RowPiece& piece) {
  if (piece.count < 2) return true;
  const AffineInterval& a = piece.intervals[0];
  const AffineInterval& b = piece.intervals[1];
  return a.hi.step == 0 || b.lo.step == 0;
}

RowPiece part_of(const RowPiece& piece, std::int64_t begin, std::int64_t end) {
  RowPiece part = piece;
  part.row = begin;
  part.rows = end - begin;
  for (AffineInterval& i : part.intervals) {
    i.lo.base = i.lo.at(begin - piece.row);
    i.hi.base = i.hi.at(begin - piece.row);
  }
  return part;
}

void append_piece(const RowPiece& piece, std::vector<RowPiece>& out) {
  bool even = rows_agree(piece);
  for (int i = 0; i < piece.count; ++i) {
    even = even && rows_join(piece.intervals[static_cast<std::size_t>(i)], piece.rows);
  }
  if (even) {
    out.push_back(piece);
    return;
  }
  for (std::int64_t r = piece.row; r < piece.row + piece.rows; ++r) {
    out.push_back(part_of(piece, r, r + 1));
  }
}

/// Local key indices [begin, end).
struct IndexRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

/// Calls fn(piece part) for each piece of the query rows [begin, end).
template <typename Fn>
void for_pieces(const std::vector<RowPiece>& pieces, std::int64_t begin, std::int64_t end, Fn fn) {
  auto p = std::partition_point(pieces.begin(), pieces.end(),
                                [&](const RowPiece& x) { return x.row + x.rows <= begin; });
  for (; p != pieces.end() && p->row < end; ++p) {
    fn(part_of(*p, std::max(begin, p->row), std::min(end, p->row + p->rows)));
  }
}

using IndexRanges = std::vector<IndexRange>;

/// Numbers of the key tiles that a piece touches.
void collect_touched(const RowPiece& piece, const TokenRange& keys, const KeyTiles& tiles,
                     IndexRanges& touched) {
  for (int i = 0; i < piece.count; ++i) {
    const AffineInterval& x = piece.intervals[static_cast<std::size_t>(i)];
    const std::int64_t begin = index_of(keys, x.lo.base);
    const std::int64_t end = index_of(keys, x.hi.at(piece.rows - 1));
    if (begin < end) touched.push_back({tiles.tile_of(begin), tiles.tile_of(end - 1) + 1});
  }
}

void join(IndexRanges& ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](IndexRange a, IndexRange b) { return a.begin < b.begin; });
  std::size_t n = 0;
  for (const IndexRange r : ranges) {
    if (n > 0 && r.begin <= ranges[n - 1].end) {
      ranges[n - 1].end = std::max(ranges[n - 1].end, r.end);
    } else {
      ranges[n++] = r;
    }
  }
  ranges.resize(n);
}

/// Key positions that some row of a piece sees.
void collect_seen(const RowPiece& piece, IndexRanges& seen) {
  for (int i = 0; i < piece.count; ++i) {
    const AffineInterval& x = piece.intervals[static_cast<std::size_t>(i)];
    seen.push_back({x.lo.base, x.hi.at(piece.rows - 1)});
  }
}

/// Key indices that every row of a piece sees. Two intervals join where strided keys skip the gap.
IndexRanges full_ranges(const RowPiece& piece, const TokenRange& keys) {
  IndexRanges full;
  for (int i = 0; i < piece.count; ++i) {
    const AffineInterval& x = piece.intervals[static_cast<std::size_t>(i)];
    const IndexRange all{index_of(keys, x.lo.at(piece.rows - 1)), index_of(keys, x.hi.base)};
    if (all.begin < all.end) full.push_back(all);
  }
  join(full);
  return full;
}

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

}  // namespace

RowTable::RowTable(const std::vector<Band>& bands, std::span<const TokenRange> ranges) {
  for (const TokenRange& range : ranges) {
    std::int64_t done = 0;
    auto band = std::partition_point(bands.begin(), bands.end(),
                                     [&](const Band& b) { return b.end <= range.begin; });
    for (; band != bands.end() && done < range.count; ++band) {
      const std::int64_t end =
          std::min(range.count, ceil_div(band->end - range.begin, range.stride));
      if (end <= done) continue;
      RowPiece piece{rows_ + done, end - done, band->count, band->intervals};
      for (AffineInterval& i : piece.intervals) {
        const std::int64_t first = range.position(done) - band->begin;
        i.lo = {i.lo.at(first), i.lo.step * range.stride};
        i.hi = {i.hi.at(first), i.hi.step * range.stride};
      }
      append_piece(piece, pieces_);
      done = end;
    }
    rows_ += range.count;
  }
}

std::int64_t RowTable::pairs(const TokenRange& keys) const {
  std::int64_t sum = 0;
  for (const RowPiece& piece : pieces_) {
    for (int i = 0; i < piece.count; ++i) {
      const AffineInterval& x = piece.intervals[static_cast<std::size_t>(i)];
      sum += sum_of_indices(x.hi, piece.rows, keys) - sum_of_indices(x.lo, piece.rows, keys);
    }
  }
  return sum;
}

std::vector<KeyInterval> RowTable::needed_keys() const {
  IndexRanges ranges;
  for (const RowPiece& piece : pieces_) {
    collect_seen(piece, ranges);
  }
  join(ranges);
  std::vector<KeyInterval> keys;
  for (const IndexRange r : ranges) keys.push_back({r.begin, r.end});
  return keys;
}

void RowTable::tiles(const TileGrid& grid, std::int32_t segment, const TokenRange& keys,
                     std::vector<Tile>& out) const {
  if (keys.count == 0) return;
  const KeyTiles key_tiles(keys, grid.tile_k);
  for (std::int64_t row = 0; row < rows_; row += grid.tile_q) {
    const std::int64_t end = std::min(rows_, row + grid.tile_q);
    IndexRanges touched;
    std::vector<IndexRanges> full;
    for_pieces(pieces_, row, end, [&](const RowPiece& piece) {
      collect_touched(piece, keys, key_tiles, touched);
      full.push_back(full_ranges(piece, keys));
    });
    join(touched);
    for (const IndexRange range : touched) {
      for (std::int64_t t = range.begin; t < range.end; ++t) {
        const std::int64_t first = key_tiles.begin(t);
        const std::int64_t last = key_tiles.end(t);
        out.push_back({static_cast<std::int32_t>(row), static_cast<std::int32_t>(end - row),
                       segment, static_cast<std::int32_t>(last - first), first,
                       is_full(full, first, last)});
      }
    }
  }
}

std::int64_t RowTable::tile_pairs(const TileGrid& grid, const TokenRange& keys) const {
  if (keys.count == 0) return 0;
  const KeyTiles key_tiles(keys, grid.tile_k);
  std::int64_t sum = 0;
  IndexRanges touched;
  for (std::int64_t row = 0; row < rows_; row += grid.tile_q) {
    const std::int64_t end = std::min(rows_, row + grid.tile_q);
    touched.clear();
    for_pieces(pieces_, row, end,
               [&](const RowPiece& piece) { collect_touched(piece, keys, key_tiles, touched); });
    join(touched);
    for (const IndexRange range : touched) {
      sum += (end - row) * (key_tiles.end(range.end - 1) - key_tiles.begin(range.begin));
    }
  }
  return sum;
}

std::int64_t RowTable::tile_pairs(const TileGrid& grid, std::vector<TokenRange> keys) const {
  std::erase_if(keys, [](const TokenRange& k) { return k.count == 0; });
  const bool dense = std::all_of(keys.begin(), keys.end(), [](auto& k) { return k.stride == 1; });
  std::int64_t sum = 0;
  if (!dense || keys.size() < 4) {  // stripes overlap each other's span: no order to use
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

std::vector<RowIntervals> RowTable::intervals() const {
  std::vector<RowIntervals> rows(static_cast<std::size_t>(rows_));
  for (const RowPiece& piece : pieces_) {
    for (std::int64_t r = 0; r < piece.rows; ++r) {
      for (std::size_t i = 0; i < static_cast<std::size_t>(piece.count); ++i) {
        rows[static_cast<std::size_t>(piece.row + r)][i] = {piece.intervals[i].lo.at(r),
                                                            piece.intervals[i].hi.at(r)};
      }
    }
  }
  return rows;
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

namespace annulus {

std::vector<std::int64_t> count_pairs_by_rank(const Problem& problem, const Sharding& sharding) {
  const Problem p = resolved(problem);
  const std::vector<attn::Band> bands = attn::compile_bands(p);
  std::vector<std::int64_t> pairs;
  for (int r = 0; r < sharding.world(); ++r) {
    pairs.push_back(attn::RowTable(bands, sharding.shard(r)).pairs({0, *p.seq_kv, 1}));
  }
  return pairs;
}

}  // namespace annulus
