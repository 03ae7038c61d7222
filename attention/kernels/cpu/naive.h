#pragma once

#include "attention/kernels/cpu/blocks.h"
#include "attention/kernels/dispatch.h"

#include <cstdint>
#include <vector>

namespace annulus::attn::cpu {

/// Attention as the formula is written: all scores in memory, softmax over them, then the product
/// with V. Serves what flash2 serves as far as memory goes; to compare with.
const Kernel& naive_kernel();

void naive_forward(const ForwardParams& params, const LaunchContext& context);
void naive_backward(const BackwardParams& params, const LaunchContext& context);

/// Bytes of workspace that one thread of a pass takes, beside the scores.
std::int64_t naive_forward_bytes(const AttendGeometry& geometry);
std::int64_t naive_backward_bytes(const AttendGeometry& geometry);

/// The two score matrices of a launch (S and P; backward: P and dS), of every head. They lie in
/// panels of kRows rows, each [key][row], so that a panel is a tile of all keys.
class ScoreMatrices {
 public:
  ScoreMatrices(const AttendGeometry& geometry, float* memory);

  static std::int64_t floats(const AttendGeometry& geometry);

  std::int64_t keys() const { return keys_; }
  std::int64_t panels() const { return panels_; }
  /// Rows [row, row + rows) of the launch and the tiles that touch them, first to last.
  RowSpan span(std::int64_t panel) const;
  /// `which`: 0 or 1. `head` counts through the batch.
  float* panel(int which, std::int64_t head, std::int64_t panel) const {
    return memory_ + ((which * heads_ + head) * panels_ + panel) * keys_ * kRows;
  }
  /// Row max and sum of a panel: [2][kRows].
  float* statistics(std::int64_t head, std::int64_t panel) const {
    return memory_ + 2 * heads_ * panels_ * keys_ * kRows + (head * panels_ + panel) * 2 * kRows;
  }
  /// Where the keys of a tile part begin in a panel.
  std::int64_t place(const KeySpan& keys) const {
    return (first_[static_cast<std::size_t>(keys.segment)] + keys.key) * kRows;
  }

 private:
  const AttendGeometry& geometry_;
  std::vector<std::int64_t> first_;
  std::int64_t heads_ = 0, keys_ = 0, panels_ = 0;
  float* memory_ = nullptr;
};

/// What one tile product takes of a panel: rows [first, part.rows) of it.
struct PanelPart {
  KeySpan keys;
  KeyBlock part;
  std::int64_t first = 0;
  bool whole = false;  ///< all rows of the panel
};

/// fn(PanelPart) for the tiles that touch `span`, in tile order.
template <typename Fn>
void for_each_part(const AttendGeometry& geometry, const RowSpan& span, Fn&& fn) {
  for (const Tile& tile : span.tiles) {
    if (tile.row + tile.rows <= span.row || tile.row >= span.row + span.rows) continue;
    for (std::int64_t at = 0; at < tile.keys; at += kKeys) {
      const KeySpan keys{tile.segment, tile.key + at, std::min(kKeys, tile.keys - at)};
      const std::int64_t first = std::max<std::int64_t>(0, tile.row - span.row);
      PanelPart part{keys, key_block(geometry, span.row, span.rows, tile, keys), first, false};
      part.whole = first == 0 && part.part.rows == span.rows;
      fn(part);
    }
  }
}

/// The part's rows of tile `from` [keys][kRows] into `to`; other rows of `to` stay.
inline void copy_part(const PanelPart& part, const float* from, float* to) {
  for (std::int64_t j = 0; j < part.part.keys; ++j) {
    std::copy(from + j * kRows + part.first, from + j * kRows + part.part.rows,
              to + j * kRows + part.first);
  }
}

/// The part of a panel to multiply with: itself, or a copy in `scratch` without other tiles' rows.
inline const float* only_part(const PanelPart& part, const float* panel, float* scratch) {
  if (part.whole) return panel;
  std::fill_n(scratch, part.part.keys * kRows, 0.0F);
  copy_part(part, panel, scratch);
  return scratch;
}

inline std::int64_t pairs_of(const PanelPart& part) {
  return (part.part.rows - part.first) * part.part.keys;
}

}  // namespace annulus::attn::cpu
