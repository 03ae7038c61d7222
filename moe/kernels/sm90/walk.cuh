#pragma once

#include "moe/kernels/sm90/tiles.h"

namespace annulus::moe::sm90 {

/// A tile of the result.
struct Tile {
  int row;     ///< its first, of all rows
  int rows;    ///< of its expert from there on: may be more than a tile
  int column;  ///< its first
  int expert;
};

/// Tiles by number: experts one after the other, of an expert bands of row tiles, of a band the
/// columns, of a column the band's rows. Blocks that run together thus read few rows of A and few
/// columns of B, and share them in L2. Numbers are asked for in rising order.
template <int kRows, int kColumns>
struct Walk {
  const Grouped& g;
  int columns;    ///< column tiles
  int group = 0;  ///< of the last number
  int first = 0;  ///< number of that group's first tile

  __device__ __forceinline__ explicit Walk(const Grouped& grouped)
      : g(grouped), columns((grouped.n + kColumns - 1) / kColumns) {}

  /// False where there are no more.
  __device__ __forceinline__ bool find(int number, Tile& tile) {
    for (; group < g.groups; ++group) {
      const Group& of = g.table[group];
      const int row_tiles = (of.rows + kRows - 1) / kRows;
      if (number - first < row_tiles * columns) {
        const int here = number - first;
        const int band = here / (g.band * columns);
        const int height = min(g.band, row_tiles - band * g.band);
        const int within = here - band * g.band * columns;
        const int row = kRows * (band * g.band + within % height);
        tile = {of.first + row, of.rows - row, kColumns * (within / height), of.expert};
        return true;
      }
      first += row_tiles * columns;
    }
    return false;
  }
};

}  // namespace annulus::moe::sm90
