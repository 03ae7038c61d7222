#pragma once

#include "attention/execute/cuda/row_grid.cuh"

#include <algorithm>
#include <cstddef>
#include <span>

// What blocks do with rows: copies and conversions, one of them a launch or several, and row sums.
namespace annulus::attn {

inline constexpr int kRowsAtOnce = 4;  ///< of a thread that sums

/// The rows of block `block`.
template <int Width>
__device__ void convert_block(const DeviceRows& from, const DeviceRows& to, const RowGrid& grid,
                              unsigned block) {
  Row row;
  if (!find_row(grid, block, row)) return;
  each_run<Width>(grid, [&](std::int64_t d) {
    store<Width>(to, at(to, row) + d, load<Width>(from, at(from, row) + d));
  });
}

/// Several rows of T a thread, whose loads are all under way at once.
template <int Width, typename T>
__device__ void sum_block(const DeviceRows& a, const DeviceRows& b, const DeviceRows& to,
                          const RowGrid& grid, unsigned block) {
  Row rows[kRowsAtOnce];
  const int real = find_rows(grid, block, rows);
  float sums[kRowsAtOnce] = {};
  each_run<Width>(grid, [&](std::int64_t d) {
    Pack<T, Width> x[kRowsAtOnce], y[kRowsAtOnce];
#pragma unroll
    for (int i = 0; i < kRowsAtOnce; ++i) {
      x[i] = load_pack<Width, T>(a.data, at(a, rows[i]) + d);
      y[i] = load_pack<Width, T>(b.data, at(b, rows[i]) + d);
    }
#pragma unroll
    for (int i = 0; i < kRowsAtOnce; ++i) {
#pragma unroll
      for (int k = 0; k < Width; ++k) sums[i] += to_float(x[i].v[k]) * to_float(y[i].v[k]);
    }
  });
#pragma unroll
  for (int i = 0; i < kRowsAtOnce; ++i) {
    for (int offset = grid.lanes / 2; offset > 0; offset /= 2) {
      sums[i] += __shfl_xor_sync(0xffffffffU, sums[i], offset);
    }
    if (i < real && threadIdx.x % grid.lanes == 0) {
      store<1>(to, at(to, rows[i]), Values<1>{{sums[i]}});
    }
  }
}

__device__ inline void begin_words(const CallWords& words, std::uint32_t pass) {
  *words.flops = 0;
  *words.calls += 1;
  *words.pass = pass;
  for (int i = 0; i < words.counter_count; ++i) words.counters[i] = 0;
}

/// Several pieces of work. Blocks [end of the one before, end) have the rows of a piece.
struct RowWorks {
  struct Piece {
    RowWork work;
    RowGrid grid;
    int width;  ///< elements that a lane takes at once
    unsigned end;
  };
  Piece pieces[kMostRowWorks];
  CallWords begin;  ///< none: flops is null
  std::uint32_t pass;
};

/// Block `x` of them.
__device__ inline void do_works(const RowWorks& works, unsigned x) {
  if (x == 0 && threadIdx.x == 0 && works.begin.flops != nullptr) {
    begin_words(works.begin, works.pass);
  }
  int i = 0;
  while (x >= works.pieces[i].end) ++i;
  const RowWorks::Piece& p = works.pieces[i];
  const RowWork& w = p.work;
  const unsigned block = x - (i == 0 ? 0 : works.pieces[i - 1].end);
  if (p.width == kWidest) return convert_block<kWidest>(w.from, w.to, p.grid, block);
  if (p.width == kWide) return convert_block<kWide>(w.from, w.to, p.grid, block);
  convert_block<1>(w.from, w.to, p.grid, block);
}

inline RowWorks::Piece piece_of(RowWork w) {
  RowWorks::Piece p{};
  RowShape shape = w.shape;
  if (shape.dims == 1) {  // neighbours along tokens, as callers have them
    shape = turned(shape, {&w.from, &w.to});
    p.width = 1;
  } else {
    shape = recut(shape, {&w.from, &w.to});
    p.width = width_for(shape, {w.from, w.to});
  }
  p.work = w;
  p.grid = grid_of(shape, p.width);
  return p;
}

/// How many blocks they are.
inline unsigned place_works(std::span<const RowWork> list, RowWorks& works) {
  unsigned blocks = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    RowWorks::Piece& p = works.pieces[i] = piece_of(list[i]);
    p.end = blocks += p.grid.shape.dims == 0 ? 0 : blocks_of(p.grid);
  }
  return blocks;
}

}  // namespace annulus::attn
