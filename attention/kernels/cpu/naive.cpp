#include "attention/kernels/cpu/naive.h"

#include "attention/kernels/cpu/scratch.h"
#include "attention/kernels/cpu/support.h"

namespace annulus::attn::cpu {

namespace {

std::int64_t key_count(const AttendGeometry& g) {
  std::int64_t count = 0;
  for (const KeySegment& segment : g.keys) count += segment.count;
  return count;
}

std::int64_t panel_count(const AttendGeometry& g) { return (g.rows + kRows - 1) / kRows; }

/// Two matrices; their padding to whole panels and the row statistics are not counted.
std::int64_t materialized_bytes(const AttendGeometry& g, bool /*backward*/) {
  return 2 * g.batch * g.heads * g.rows * key_count(g) * static_cast<std::int64_t>(sizeof(float));
}

std::int64_t workspace_bytes(const AttendGeometry& g, bool backward, int threads) {
  const std::int64_t share = backward ? naive_backward_bytes(g) : naive_forward_bytes(g);
  return Workspace::bytes(ScoreMatrices::floats(g), share, threads);
}

constexpr Kernel kNaive{.name = "naive",
                        .backend = "cpu",
                        .tile_q = kRows,
                        .tile_k = kKeys,
                        .refuses = refuses,
                        .workspace_bytes = workspace_bytes,
                        .quadratic_workspace = true,
                        .materialized_bytes = materialized_bytes,
                        .forward = naive_forward,
                        .backward = naive_backward};

}  // namespace

ScoreMatrices::ScoreMatrices(const AttendGeometry& geometry, float* memory)
    : geometry_(geometry),
      heads_(geometry.batch * geometry.heads),
      panels_(panel_count(geometry)),
      memory_(memory) {
  for (const KeySegment& segment : geometry.keys) {
    first_.push_back(keys_);
    keys_ += segment.count;
  }
}

std::int64_t ScoreMatrices::floats(const AttendGeometry& g) {
  return g.batch * g.heads * panel_count(g) * (2 * key_count(g) + 2) * kRows;
}

RowSpan ScoreMatrices::span(std::int64_t panel) const {
  const std::int64_t row = panel * kRows;
  const std::int64_t rows = std::min(kRows, geometry_.rows - row);
  // Tiles are sorted by row, but how far one reaches is its own.
  const auto end = std::partition_point(geometry_.tiles.begin(), geometry_.tiles.end(),
                                        [&](const Tile& tile) { return tile.row < row + rows; });
  const auto count = static_cast<std::size_t>(end - geometry_.tiles.begin());
  return {row, rows, geometry_.tiles.first(count)};
}

const Kernel& naive_kernel() { return kNaive; }

}  // namespace annulus::attn::cpu
