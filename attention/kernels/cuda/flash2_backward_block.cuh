// What a block of flash2's backward shares, copies and waits for; its products are in
// flash2_backward.cuh.
#pragma once

#include "attention/kernels/cuda/device/blocks.cuh"
#include "attention/kernels/cuda/device/numbers.cuh"
#include "attention/kernels/cuda/device/steps.cuh"

namespace annulus::attn::cuda {

/// What a query row brings to its gradients.
struct RowNumbers {
  float lse = 0.0F;  ///< in shared memory: times log2(e), +inf where P is to be 0
  float delta = 0.0F;
};

/// Shared memory of a block.
template <typename T, int kDim>
struct Flash2BackwardShared {
  static constexpr int kRows = kDim == 64 ? 128 : 64;
  static constexpr int kKeys = 128;
  T k[kKeys][kDim], v[kKeys][kDim];
  T q[2][kRows][kDim], dout[2][kRows][kDim];
  T p[kKeys][kRows], ds[kKeys][kRows];
  RowNumbers numbers[2][kRows];
  Step steps[4];
  StepWalker<kRows> walker;
  int counted;         ///< the last query segment with a counter that was awaited
  std::uint32_t seen;  ///< what that held
  int aborted;
};

template <typename T, int kDim>
struct Flash2BackwardBlock {
  using Shared = Flash2BackwardShared<T, kDim>;
  static constexpr int kRows = Shared::kRows;
  static constexpr int kKeys = Shared::kKeys;
  static constexpr int kThreads = 256;

  const Geometry& g;
  const BackwardParams& p;
  Shared& shared;
  int* turns;
  int batch, kv_head, lane, warp;
  int begin, end, keys;  ///< of the key tile
  int key0, half;        ///< of the warp: its first key, its half of rows and of dims
  HeadRange heads;
  KeySegment segment;
  std::int64_t first_key;  ///< within the segment

  __device__ Flash2BackwardBlock(const Geometry& geometry, const BackwardParams& params,
                                 int* counters, Shared& memory, int key_tile)
      : g(geometry), p(params), shared(memory), turns(counters) {
    batch = static_cast<int>(blockIdx.z);
    kv_head = static_cast<int>(blockIdx.y) + g.first_kv_head;
    lane = static_cast<int>(threadIdx.x & 31U);
    warp = static_cast<int>(threadIdx.x / 32U);
    key0 = 32 * (warp >> 1);
    half = warp & 1;
    begin = g.key_tiles[key_tile];
    end = g.key_tiles[key_tile + 1];
    heads = heads_of(g, kv_head);
    segment = g.keys[g.tiles_by_key[begin].segment];
    first_key = g.tiles_by_key[begin].key;
  }

  __device__ void copy_keys(void* to, const Input& operand) const {
    const T* from = static_cast<const T*>(operand.data) +
                    index_of(operand, batch, segment.token + first_key, kv_head);
    copy_rows<T, kDim, kKeys, kThreads>(shared_address(to), from, operand.token_stride, keys);
  }

  __device__ void copy_queries(void* to, const Input& operand, const Step& step) const {
    const T* from =
        static_cast<const T*>(operand.data) + index_of(operand, batch, step.token, step.head);
    copy_rows<T, kDim, kRows, kThreads>(shared_address(to), from, operand.token_stride, step.rows);
  }

  /// One thread: until the rows of a step are there. An abort ends the launch at the next barrier.
  __device__ void await_rows_of(const Step& step) const {
    if (step.counted < 0) return;
    const QuerySegment& from = g.queries[step.counted];
    // Segments may share a counter: it is not read again.
    if (from.ready != g.queries[shared.counted].ready) shared.seen = 0;
    shared.counted = step.counted;
    if (shared.seen >= from.all) return;
    const std::uint32_t needed = needed_for(from, step.head, step.row - from.row, step.rows);
    if (needed <= shared.seen) return;
    if (!await_count(g, from.ready, needed, shared.seen)) shared.aborted = 1;
  }

  /// Begins the copies of a step's rows. Thread i gets the numbers of row i as they lie in memory.
  __device__ RowNumbers copy_rows_of(const Step& step, int stage) const {
    RowNumbers numbers{-kInfinity, 0.0F};
    if (step.rows > 0) {
      copy_queries(shared.q[stage], p.q, step);
      copy_queries(shared.dout[stage], p.dout, step);
      const auto i = static_cast<int>(threadIdx.x);
      if (i < step.rows) {
        numbers.lse = *f32_row(p.lse, batch, step.token + i, step.head);
        numbers.delta = *f32_row(p.delta, batch, step.token + i, step.head);
      }
    }
    commit_copies();
    return numbers;
  }

  /// P of a row that saw no key is 0.
  __device__ void keep_numbers(const RowNumbers& numbers, int stage) const {
    if (threadIdx.x >= kRows) return;
    const bool seen = numbers.lse != -kInfinity;
    shared.numbers[stage][threadIdx.x] = {seen ? numbers.lse * kLog2E : kInfinity,
                                          seen ? numbers.delta : 0.0F};
  }

  __device__ int* counter(const Step& step, int part) const {
    return turns + turn_index(g, batch, step.head, g.places[step.tile].row_tile, part);
  }

  /// The warp: until its block may add to dQ. An abort ends the launch at the next barrier.
  __device__ void await_dq(const Step& step) const {
    if (lane == 0 && !await_turn(g, counter(step, step.part), g.places[step.tile].turn)) {
      shared.aborted = 1;
    }
    __syncwarp();
  }

  /// One thread, after all of the block have added: the next key tile may. Halves that the tile
  /// does not reach are passed on with its last part.
  __device__ void pass_turn(const Step& step) const {
    if (!step.last) return;
    const int turn = g.places[step.tile].turn;
    __threadfence();
    store_release(counter(step, step.part), turn + 1);
    if ((step.part + 1) * kRows < g.tiles_by_key[step.tile].rows) return;
    for (int part = step.part + 1; part < 128 / kRows; ++part) {
      if (!await_turn(g, counter(step, part), turn)) return;
      store_release(counter(step, part), turn + 1);
    }
  }
};

}  // namespace annulus::attn::cuda
