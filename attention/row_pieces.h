#pragma once

#include "attention/row_table.h"

#include <algorithm>
#include <cstdint>
#include <vector>

// What the files of the row table share: indices of strided keys, and pieces cut to rows.
namespace annulus::attn {

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return a >= 0 ? (a + b - 1) / b : -(-a / b);
}

/// First local index of `keys` whose position is >= `position`, within [0, count].
inline std::int64_t index_of(const TokenRange& keys, std::int64_t position) {
  const std::int64_t away = position - keys.begin;
  return std::clamp(keys.stride == 1 ? away : ceil_div(away, keys.stride), std::int64_t{0},
                    keys.count);
}

inline RowPiece part_of(const RowPiece& piece, std::int64_t begin, std::int64_t end) {
  RowPiece part = piece;
  part.row = begin;
  part.rows = end - begin;
  for (AffineInterval& i : part.intervals) {
    i.lo.base = i.lo.at(begin - piece.row);
    i.hi.base = i.hi.at(begin - piece.row);
  }
  return part;
}

/// Local key indices [begin, end).
struct IndexRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};
using IndexRanges = std::vector<IndexRange>;

/// Calls fn(piece part) for each piece of the query rows [begin, end).
template <typename Fn>
void for_pieces(const std::vector<RowPiece>& pieces, std::int64_t begin, std::int64_t end, Fn fn) {
  auto p = std::partition_point(pieces.begin(), pieces.end(),
                                [&](const RowPiece& x) { return x.row + x.rows <= begin; });
  for (; p != pieces.end() && p->row < end; ++p) {
    fn(part_of(*p, std::max(begin, p->row), std::min(end, p->row + p->rows)));
  }
}

inline void join(IndexRanges& ranges) {
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

/// Numbers of the key tiles that a piece touches.
inline void collect_touched(const RowPiece& piece, const TokenRange& keys, const KeyTiles& tiles,
                            IndexRanges& touched) {
  for (int i = 0; i < piece.count; ++i) {
    const AffineInterval& x = piece.intervals[static_cast<std::size_t>(i)];
    const std::int64_t begin = index_of(keys, x.lo.base);
    const std::int64_t end = index_of(keys, x.hi.at(piece.rows - 1));
    if (begin < end) touched.push_back({tiles.tile_of(begin), tiles.tile_of(end - 1) + 1});
  }
}

/// Key indices that every row of a piece sees. Two intervals join where strided keys skip the gap.
inline IndexRanges full_ranges(const RowPiece& piece, const TokenRange& keys) {
  IndexRanges full;
  for (int i = 0; i < piece.count; ++i) {
    const AffineInterval& x = piece.intervals[static_cast<std::size_t>(i)];
    const IndexRange all{index_of(keys, x.lo.at(piece.rows - 1)), index_of(keys, x.hi.base)};
    if (all.begin < all.end) full.push_back(all);
  }
  join(full);
  return full;
}

/// Key positions that some row of a piece sees.
inline void collect_seen(const RowPiece& piece, IndexRanges& seen) {
  for (int i = 0; i < piece.count; ++i) {
    const AffineInterval& x = piece.intervals[static_cast<std::size_t>(i)];
    seen.push_back({x.lo.base, x.hi.at(piece.rows - 1)});
  }
  for (const KeyInterval& k : piece.fixed_keys()) seen.push_back({k.begin, k.end});
}

}  // namespace annulus::attn
