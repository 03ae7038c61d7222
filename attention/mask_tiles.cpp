#include <annulus/mask_tiles.h>

#include "attention/row_table.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace annulus {
namespace {

/// Ascending, disjoint, not adjacent.
using Intervals = std::vector<KeyInterval>;

void join(Intervals& intervals) {
  std::ranges::sort(intervals, {}, &KeyInterval::begin);
  std::size_t n = 0;
  for (const KeyInterval i : intervals) {
    if (n > 0 && i.begin <= intervals[n - 1].end) {
      intervals[n - 1].end = std::max(intervals[n - 1].end, i.end);
    } else {
      intervals[n++] = i;
    }
  }
  intervals.resize(n);
}

Intervals intersection(const Intervals& a, const Intervals& b) {
  Intervals both;
  for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const std::int64_t begin = std::max(a[i].begin, b[j].begin);
    const std::int64_t end = std::min(a[i].end, b[j].end);
    if (begin < end) both.push_back({begin, end});
    a[i].end < b[j].end ? ++i : ++j;
  }
  return both;
}

/// Appends the parts of `runs` that `full` leaves as partial, and `full` itself, in order.
std::vector<TileRun> with_kinds(const Intervals& touched, const Intervals& full) {
  std::vector<TileRun> runs;
  std::size_t f = 0;
  for (const KeyInterval t : touched) {
    std::int64_t at = t.begin;
    for (; f < full.size() && full[f].begin < t.end; ++f) {
      if (at < full[f].begin) runs.push_back({at, full[f].begin, false});
      runs.push_back({full[f].begin, full[f].end, true});
      at = full[f].end;
    }
    if (at < t.end) runs.push_back({at, t.end, false});
  }
  return runs;
}

}  // namespace

struct MaskTiles::Impl {
  Problem problem;
  std::int64_t tile_q;
  std::int64_t tile_k;
  std::vector<attn::Band> bands;

  std::int64_t rows() const { return (problem.seq + tile_q - 1) / tile_q; }
  std::int64_t columns() const { return (*problem.seq_kv + tile_k - 1) / tile_k; }

  /// Tiles that lie whole in [begin, end); the last one ends at the edge.
  KeyInterval whole_tiles(std::int64_t begin, std::int64_t end) const {
    return {(begin + tile_k - 1) / tile_k, end == *problem.seq_kv ? columns() : end / tile_k};
  }

  /// Tiles that every row of the piece sees whole. Intervals may join: tiles that two of them
  /// cover.
  Intervals full_tiles(const attn::RowPiece& piece) const {
    Intervals keys;
    for (int i = 0; i < piece.count; ++i) {
      const attn::AffineInterval& x = piece.intervals[static_cast<std::size_t>(i)];
      const KeyInterval all{x.lo.at(piece.rows - 1), x.hi.base};
      if (all.begin < all.end) keys.push_back(all);
    }
    keys.insert(keys.end(), piece.fixed_keys().begin(), piece.fixed_keys().end());
    join(keys);
    Intervals tiles;
    for (const KeyInterval k : keys) {
      const KeyInterval t = whole_tiles(k.begin, k.end);
      if (t.begin < t.end) tiles.push_back(t);
    }
    return tiles;
  }

  void add_touched(const attn::RowPiece& piece, Intervals& touched) const {
    for (int i = 0; i < piece.count; ++i) {
      const attn::AffineInterval& x = piece.intervals[static_cast<std::size_t>(i)];
      const std::int64_t last = x.hi.at(piece.rows - 1) - 1;
      touched.push_back({x.lo.base / tile_k, last / tile_k + 1});
    }
    for (const KeyInterval& k : piece.fixed_keys()) {
      touched.push_back({k.begin / tile_k, (k.end - 1) / tile_k + 1});
    }
  }

  std::vector<TileRun> runs(std::int64_t row) const {
    const std::int64_t begin = row * tile_q;
    const TokenRange queries{begin, std::min(tile_q, problem.seq - begin), 1};
    const attn::RowTable table(bands, std::span(&queries, 1));
    Intervals touched;
    Intervals full{{0, columns()}};
    for (const attn::RowPiece& piece : table.pieces()) {
      add_touched(piece, touched);
      full = intersection(full, full_tiles(piece));
    }
    join(touched);
    return with_kinds(touched, full);
  }
};

MaskTiles::MaskTiles(const Problem& problem, std::int64_t tile_q, std::int64_t tile_k) {
  if (tile_q < 1 || tile_k < 1) {
    throw InvalidArgument(fmt::format("tile is {} x {}, must be at least 1 x 1", tile_q, tile_k));
  }
  Problem p = resolved(problem);
  std::vector<attn::Band> bands = attn::compile_bands(p);
  impl_ = std::make_shared<const Impl>(Impl{std::move(p), tile_q, tile_k, std::move(bands)});
}

std::int64_t MaskTiles::rows() const { return impl_->rows(); }

std::int64_t MaskTiles::columns() const { return impl_->columns(); }

std::vector<TileRun> MaskTiles::runs(std::int64_t row) const {
  if (row < 0 || row >= rows()) {
    throw InvalidArgument(fmt::format("row of tiles {} is not one of {}", row, rows()));
  }
  return impl_->runs(row);
}

TileCounts MaskTiles::count() const {
  TileCounts counts;
  for (std::int64_t row = 0; row < rows(); ++row) {
    for (const TileRun& run : impl_->runs(row)) {
      (run.full ? counts.full : counts.partial) += run.end - run.begin;
    }
  }
  counts.empty = rows() * columns() - counts.full - counts.partial;
  return counts;
}

}  // namespace annulus
