#include "tests/emulate/problems.h"

#include <algorithm>
#include <cmath>

namespace annulus::testing {

OracleProblem problem_of(std::int64_t seq, std::int64_t dim, DType dtype) {
  return {.seq = seq,
          .seq_kv = seq,
          .heads = 2,
          .heads_kv = 1,
          .head_dim = dim,
          .head_dim_v = dim,
          .dtype = dtype,
          .terms = {Mask::Causal{}},
          .softmax_scale = 1.0 / std::sqrt(static_cast<double>(dim))};
}

std::vector<std::vector<Mask::Term>> masks_of_300() {
  Mask::Rows rows;
  for (std::int64_t i = 0; i < 300; ++i) {
    rows.intervals.push_back(
        i % 2 == 0 || (i > 128 && i < 270)
            ? RowIntervals{}
            : RowIntervals{KeyInterval{i / 4, i / 2}, KeyInterval{i / 2 + 3, i / 2 + 90}});
  }
  return {{Mask::Window{100, 0}},
          {Mask::Documents{{100, 0, 37, 1, 162}, true}},
          {Mask::Prefix{150}},
          {rows}};
}

TestLaunch every_tile(const OracleProblem& p, const TileGrid& grid) {
  TestLaunch all = make_launch(p, one_segment(p), grid);
  all.tiles.clear();
  for (std::int64_t row = 0; row < p.seq; row += grid.rows) {
    for (std::int64_t key = 0; key < p.seq_kv; key += grid.keys) {
      all.tiles.push_back({static_cast<std::int32_t>(row),
                           static_cast<std::int32_t>(std::min(grid.rows, p.seq - row)), 0,
                           static_cast<std::int32_t>(std::min(grid.keys, p.seq_kv - key)), key,
                           false});
    }
  }
  return all;
}

TestLaunch uneven_tiles(std::int64_t dim) {
  OracleProblem uneven = problem_of(90, dim);
  uneven.seq_kv = 60;
  Mask::Rows rows;
  for (std::int64_t i = 0; i < 90; ++i) {
    rows.intervals.push_back({KeyInterval{0, i < 21 ? 60 : 20}});
  }
  uneven.terms = {rows};
  TestLaunch launch = make_launch(uneven, one_segment(uneven), kGrid);
  launch.tiles = {{0, 90, 0, 20, 0, true}, {0, 21, 0, 40, 20, true}};
  return launch;
}

TestLaunch with_nan_between(std::int64_t dim, std::int64_t dim_v, const TileGrid& grid) {
  OracleProblem p = problem_of(300, dim);
  if (dim_v != 0) p.head_dim_v = dim_v;
  Mask::Rows rows;
  rows.intervals.assign(300, {KeyInterval{0, 130}, KeyInterval{200, 299}});
  p.terms = {rows};
  return make_launch(p, {{0, 0, 1, 130}, {200, 200, 1, 99}}, grid);
}

TestLaunch with_rows_between(std::int64_t dim, std::int64_t dim_v, std::int64_t tile_keys) {
  OracleProblem p = problem_of(200, dim);
  p.head_dim_v = dim_v;
  Mask::Rows rows;
  for (std::int64_t i = 0; i < 200; ++i) {
    rows.intervals.push_back(i >= 90 && i < 100 ? RowIntervals{}
                                                : RowIntervals{KeyInterval{0, i + 1}});
  }
  p.terms = {rows};
  TestLaunch launch = make_launch(p, one_segment(p), {100, tile_keys});
  for (attn::Tile& tile : launch.tiles) {
    if (tile.row == 0) tile.rows = 90;
  }
  std::erase_if(launch.tiles, [](const attn::Tile& t) { return t.row == 0 && t.key >= 90; });
  return launch;
}

}  // namespace annulus::testing
