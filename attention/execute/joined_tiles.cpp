#include "attention/execute/joined_tiles.h"

#include "attention/row_pieces.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <tuple>
#include <vector>

namespace annulus::attn {
namespace {

/// What a query tile does with key tiles [begin, end).
enum class Kind : std::uint8_t { none, partial, full };
struct Run {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  Kind kind = Kind::none;
};

/// Of a's ranges what b's have too; both are ascending and disjoint.
IndexRanges common(const IndexRanges& a, const IndexRanges& b) {
  IndexRanges both;
  for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const IndexRange x{std::max(a[i].begin, b[j].begin), std::min(a[i].end, b[j].end)};
    if (x.begin < x.end) both.push_back(x);
    a[i].end < b[j].end ? ++i : ++j;
  }
  return both;
}

/// Numbers of the key tiles that lie whole in one of the ranges of keys.
IndexRanges whole_tiles(const IndexRanges& keys, const KeyTiles& tiles) {
  IndexRanges whole;
  for (const IndexRange& r : keys) {
    std::int64_t begin = tiles.tile_of(r.begin);
    if (tiles.begin(begin) < r.begin) ++begin;
    std::int64_t end = tiles.tile_of(r.end - 1) + 1;
    if (tiles.end(end - 1) > r.end) --end;
    if (begin < end) whole.push_back({begin, end});
  }
  return whole;
}

/// One segment's tiles, query tile by query tile.
class Sweep {
 public:
  Sweep(const TokenRange& keys, std::int64_t tile_k, std::int32_t segment, const TileLimits& limits,
        JoinedTiles& out)
      : keys_(keys),
        tiles_(keys, tile_k),
        segment_(segment),
        limits_(limits),
        out_(out),
        since_(static_cast<std::size_t>(tiles_.tile_of(keys.count - 1)) + 1) {}

  /// The query tile of rows [row, end).
  void take(const RowTable& table, std::int64_t row, std::int64_t end) {
    const std::vector<Run> runs = runs_of(table, row, end);
    for (const Run& run : runs) add(row, end, run);
    change(runs, row);
    before_ = runs;
  }

  /// No query tile follows; rows end here.
  void finish(std::int64_t rows) {
    change({}, rows);
    std::sort(by_key_.begin(), by_key_.end(), [](const Tile& a, const Tile& b) {
      return std::tuple(a.key, a.row) < std::tuple(b.key, b.row);
    });
    std::vector<Tile>& all = out_.index.tiles_by_key;
    for (std::size_t i = 0; i < by_key_.size(); ++i) {
      if (i == 0 || by_key_[i].key != by_key_[i - 1].key) {
        out_.index.key_tiles.push_back(static_cast<std::int32_t>(all.size()));
      }
      all.push_back(by_key_[i]);
    }
  }

 private:
  std::vector<Run> runs_of(const RowTable& table, std::int64_t row, std::int64_t end) const {
    IndexRanges touched;
    IndexRanges full;
    bool first = true;
    for_pieces(table.pieces(), row, end, [&](const RowPiece& part) {
      collect_touched(part, keys_, tiles_, touched);
      const IndexRanges whole = whole_tiles(full_ranges(part, keys_), tiles_);
      full = first ? whole : common(full, whole);
      first = false;
    });
    join(touched);
    std::vector<Run> runs;
    std::size_t f = 0;
    for (const IndexRange& range : touched) {
      for (std::int64_t at = range.begin; at < range.end;) {
        while (f < full.size() && full[f].end <= at) ++f;
        const bool is_full = f < full.size() && full[f].begin <= at;
        std::int64_t to = range.end;
        if (f < full.size()) to = std::min(to, is_full ? full[f].end : full[f].begin);
        const Kind kind = is_full ? Kind::full : Kind::partial;
        if (!runs.empty() && runs.back().end == at && runs.back().kind == kind) {
          runs.back().end = to;
        } else {
          runs.push_back({at, to, kind});
        }
        at = to;
      }
    }
    return runs;
  }

  void add(std::int64_t row, std::int64_t end, const Run& run) {
    for (const std::int64_t t : {run.begin, std::min(run.begin + 1, run.end - 1), run.end - 1}) {
      const std::int64_t keys = tiles_.end(t) - tiles_.begin(t);
      if (end - row > limits_.rows || keys > limits_.keys) {
        throw InvalidArgument(fmt::format("a tile of {} x {} passes the kernel's {} x {}",
                                          end - row, keys, limits_.rows, limits_.keys));
      }
    }
    const std::int64_t first = tiles_.begin(run.begin);
    out_.tiles.push_back({static_cast<std::int32_t>(row), static_cast<std::int32_t>(end - row),
                          segment_, static_cast<std::int32_t>(tiles_.end(run.end - 1) - first),
                          first, run.kind == Kind::full});
  }

  /// Key tiles that the query tile at `row` treats otherwise than the one before it end there, or
  /// begin. All others grow, which costs nothing.
  void change(const std::vector<Run>& now, std::int64_t row) {
    std::size_t b = 0;
    std::size_t n = 0;
    const auto kind_at = [](const std::vector<Run>& runs, std::size_t& i, std::int64_t at,
                            std::int64_t& to) {
      while (i < runs.size() && runs[i].end <= at) ++i;
      if (i == runs.size()) return Kind::none;
      const bool inside = runs[i].begin <= at;
      to = std::min(to, inside ? runs[i].end : runs[i].begin);
      return inside ? runs[i].kind : Kind::none;
    };
    const auto all = static_cast<std::int64_t>(since_.size());
    for (std::int64_t at = 0; at < all;) {
      std::int64_t to = all;
      const Kind was = kind_at(before_, b, at, to);
      const Kind is = kind_at(now, n, at, to);
      for (std::int64_t t = at; was != is && t < to; ++t) {
        std::int64_t& since = since_[static_cast<std::size_t>(t)];
        if (was != Kind::none) {
          const std::int64_t first = tiles_.begin(t);
          by_key_.push_back(
              {static_cast<std::int32_t>(since), static_cast<std::int32_t>(row - since), segment_,
               static_cast<std::int32_t>(tiles_.end(t) - first), first, was == Kind::full});
        }
        since = row;
      }
      at = to;
    }
  }

  TokenRange keys_;
  KeyTiles tiles_;
  std::int32_t segment_;
  TileLimits limits_;
  JoinedTiles& out_;
  std::vector<Run> before_;          ///< of the query tile before
  std::vector<std::int64_t> since_;  ///< by key tile: the row from where it stands as it does
  std::vector<Tile> by_key_;
};

/// Row lists from those of each segment, one after the other.
void order_by_row(JoinedTiles& out) {
  std::stable_sort(out.tiles.begin(), out.tiles.end(),
                   [](const Tile& a, const Tile& b) { return a.row < b.row; });
  out.index.covered_rows = 0;
  for (std::size_t i = 0; i < out.tiles.size(); ++i) {
    if (i > 0 && out.tiles[i].row == out.tiles[i - 1].row) continue;
    out.index.row_tiles.push_back(static_cast<std::int32_t>(i));
    out.index.covered_rows += out.tiles[i].rows;  // of one query tile all tiles are as tall
  }
}

}  // namespace

JoinedTiles joined_tiles(const RowTable& table, const TileGrid& grid,
                         std::span<const TokenRange> keys, const TileLimits& limits) {
  if (table.cut_to_keys()) throw InvalidArgument("joined_tiles: tiles are cut to keys");
  JoinedTiles out;
  for (std::size_t s = 0; s < keys.size(); ++s) {
    if (keys[s].count == 0) continue;
    Sweep sweep(keys[s], grid.tile_k, static_cast<std::int32_t>(s), limits, out);
    for (std::int64_t row = 0; row < table.rows(); row += grid.tile_q) {
      sweep.take(table, row, std::min(table.rows(), row + grid.tile_q));
    }
    sweep.finish(table.rows());
  }
  order_by_row(out);
  const std::size_t most = std::max(out.tiles.size(), out.index.tiles_by_key.size());
  if (most > std::numeric_limits<std::int32_t>::max()) {
    throw InvalidArgument(fmt::format("{} tiles in one launch", most));
  }
  out.index.row_tiles.push_back(static_cast<std::int32_t>(out.tiles.size()));
  out.index.key_tiles.push_back(static_cast<std::int32_t>(out.index.tiles_by_key.size()));
  return out;
}

}  // namespace annulus::attn
