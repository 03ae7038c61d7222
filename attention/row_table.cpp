#include "attention/row_table.h"

#include "attention/row_pieces.h"

#include <algorithm>
#include <utility>

namespace annulus::attn {
namespace {

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

}  // namespace

std::vector<AffineInterval> RowPiece::all_intervals() const {
  std::vector<AffineInterval> all(intervals.begin(), intervals.begin() + count);
  for (const KeyInterval& k : fixed_keys()) all.push_back({{k.begin, 0}, {k.end, 0}});
  std::ranges::sort(all, {}, [](const AffineInterval& x) { return x.lo.base; });
  return all;
}

RowTable::RowTable(const std::vector<Band>& bands, std::span<const TokenRange> ranges) {
  for (const TokenRange& range : ranges) {
    std::int64_t done = 0;
    auto band = std::partition_point(bands.begin(), bands.end(),
                                     [&](const Band& b) { return b.end <= range.begin; });
    for (; band != bands.end() && done < range.count; ++band) {
      const std::int64_t end =
          std::min(range.count, ceil_div(band->end - range.begin, range.stride));
      if (end <= done) continue;
      RowPiece piece{rows_ + done, end - done, band->count, band->intervals, band->fixed};
      any_fixed_ = any_fixed_ || band->fixed != nullptr;
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
    for (const KeyInterval& k : piece.fixed_keys()) {
      sum += piece.rows * (index_of(keys, k.end) - index_of(keys, k.begin));
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
