#pragma once

#include "attention/kernels/cpu/tile_ops.h"
#include "attention/kernels/params.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

// How the CPU kernels cut a launch: blocks of up to kRows query rows, each with its tiles; tiles
// cut into blocks of up to kKeys keys.
namespace annulus::attn::cpu {

/// Query rows [row, row + rows) of the launch, at most kRows, and the tiles that may touch them.
struct RowSpan {
  std::int64_t row = 0;
  std::int64_t rows = 0;
  std::span<const Tile> tiles;
};

/// Every row of the launch in exactly one span, in order. Throws InvalidArgument where tiles that
/// begin at different rows overlap, or where those of one row are not sorted by their keys.
std::vector<RowSpan> row_spans(const AttendGeometry& geometry);

/// A span and the token of each row.
struct RowBlock {
  RowBlock(const AttendGeometry& geometry, const RowSpan& span);

  std::int64_t row = 0;
  std::int64_t rows = 0;
  std::array<std::int64_t, kRows> tokens{};
};

/// Keys [key, key + keys) of a segment.
struct KeySpan {
  std::int32_t segment = 0;
  std::int64_t key = 0;
  std::int64_t keys = 0;

  auto operator<=>(const KeySpan&) const = default;
};

/// Keys that one tile product takes, for the first `rows` rows of its row block.
struct KeyBlock {
  std::int64_t token = 0;
  std::int64_t keys = 0;
  std::int64_t rows = 0;
  bool masked = false;  ///< apply `ranges`
  RowRanges ranges;
};

/// The first token of a key span.
inline std::int64_t token_of(const AttendGeometry& geometry, const KeySpan& keys) {
  return geometry.keys[static_cast<std::size_t>(keys.segment)].token + keys.key;
}

/// What rows [row, row + rows) of the launch meet of `tile` in `keys`, a part of it. `rows` must
/// not end before the tile begins.
KeyBlock key_block(const AttendGeometry& geometry, std::int64_t row, std::int64_t rows,
                   const Tile& tile, const KeySpan& keys);

/// How `part` turns products into logits; refers to its ranges.
inline ScoreRule rule_of(const AttendGeometry& geometry, const KeyBlock& part) {
  return {static_cast<float>(geometry.softcap), part.masked ? &part.ranges : nullptr};
}

/// Where one row block is in its tiles.
class KeyCursor {
 public:
  explicit KeyCursor(const RowSpan& span) : span_(span) { skip(); }

  bool done() const { return tile_ == span_.tiles.size(); }
  const Tile& tile() const { return span_.tiles[tile_]; }
  KeySpan keys() const {
    return {tile().segment, tile().key + first_, std::min(kKeys, tile().keys - first_)};
  }
  /// No key before this one comes any more.
  KeySpan bound() const {
    const KeySpan now = keys();
    if (tile_ + 1 == span_.tiles.size()) return now;
    const Tile& next = span_.tiles[tile_ + 1];  // may begin again where this one did
    return std::min(now, KeySpan{next.segment, next.key, 0});
  }
  void advance() {
    first_ += kKeys;
    if (first_ < tile().keys) return;
    first_ = 0;
    ++tile_;
    skip();
  }

 private:
  void skip() {  // tiles that end above this block, or hold nothing
    while (!done() && (tile().row + tile().rows <= span_.row || tile().keys == 0)) ++tile_;
  }

  RowSpan span_;
  std::size_t tile_ = 0;
  std::int64_t first_ = 0;
};

/// The span that comes next in any of the cursors: each row block so meets its tiles in order, and
/// all blocks that meet a span meet it together. False: none is left.
inline bool next_keys(std::span<const KeyCursor> cursors, KeySpan& next) {
  bool found = false;
  for (const KeyCursor& cursor : cursors) {
    if (cursor.done()) continue;
    const KeySpan keys = cursor.keys();
    if (!found || keys < next) next = keys;
    found = true;
  }
  return found;
}

}  // namespace annulus::attn::cpu
