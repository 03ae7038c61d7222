#pragma once

#include "attention/kernels/sm90/rows.cuh"

#include <cstdint>

// The porters: the loader's other three warps. They bring the queries of items ahead, carry output
// and LSE away, and so keep addresses of rows, and the wait for memory, from consumers, who would
// all do that at once, with nothing for tensor cores to do. Where one item's queries have room, the
// next one's come when its last scores are there, and consumers write output themselves.
namespace annulus::attn::sm90 {

template <int kDim, int kDimV, Tuning kTuning>
struct Porter {
  using Memory = Shared<kDim, kDimV, kTuning>;
  static constexpr int kThreads = 32 * kPorters;
  static constexpr int kRows = tile_rows_of(kTuning);
  // A row is moved in pieces of 16 bytes. Each thread moves the same pieces of queries and of
  // output, and so overwrites what it alone has read.
  static constexpr int kPieces = kDim / 8;
  static constexpr int kRowStep = kThreads / kPieces;
  static_assert(kThreads % kPieces == 0);

  const cuda::Geometry& g;
  const ForwardParams& p;
  Memory& shared;

  __device__ __forceinline__ Porter(const cuda::Geometry& geometry, const ForwardParams& params,
                                    Memory& memory)
      : g(geometry), p(params), shared(memory) {}

  __device__ __forceinline__ static int thread() { return thread_again() - 32; }

  __device__ __forceinline__ void release(std::uint64_t* barrier) const {
    __syncwarp();
    if (thread() % 32 == 0) arrive(barrier);
  }

  /// move(where a row's piece lies, where it is in shared memory, does the tile have the row) for
  /// all rows of item n of which this thread has a piece.
  template <typename Pointer, typename Move>
  __device__ __forceinline__ void each_piece(const Operand<Pointer>& operand, int n,
                                             Move&& move) const {
    const Item& item = shared.items[n % Memory::kItems];
    const int piece = thread() % kPieces;
    auto* const base = element_at(operand, item.batch, 0, item.head) + 8 * piece;
    const std::uint32_t matrices = shared_address(shared.q[n % Memory::kQueries][0]);
    const auto place = [&](int row) {
      return matrices + row / kGroupRows * Memory::kQueryBytes +
             place_in_matrix(kGroupRows, row % kGroupRows, piece);
    };
    const int first = thread() / kPieces;
    if (Memory::kQueries == 1 && item.tile.token >= 0) {
      // Consumers wait for these: addresses are added up, several at once.
      auto* at = base + (item.tile.token + first) * operand.token_stride;
#pragma unroll 4
      for (int row = first; row < kRows; row += kRowStep, at += kRowStep * operand.token_stride) {
        const bool real = row < item.tile.rows;
        move(real ? at : base, place(row), real);
      }
      return;
    }
#pragma unroll 1
    for (int row = first; row < kRows; row += kRowStep) {
      const bool real = row < item.tile.rows;
      const std::int64_t token = real ? token_of(g, item.tile, row) : 0;
      move(base + token * operand.token_stride, place(row), real);
    }
  }

  /// Queries of item n to shared memory; rows that it lacks become 0. False where there is no such
  /// item.
  __device__ __forceinline__ bool fetch(int n) const {
    const Place<Memory::kItems> place(n);
    wait(&shared.item_full[place.index], place.full);
    const QueryTile& tile = shared.items[place.index].tile;
    if (tile.begin == tile.end) return false;
    const Place<Memory::kQueries> to(n);
    if constexpr (Memory::kQueries == 1) wait(&shared.q_empty, to.empty);
    each_piece(p.q, n, [](const std::uint16_t* from, std::uint32_t at, bool real) {
      copy16(at, from, real);
    });
    wait_copies();
    fence_async_shared();
    release(&shared.q_full[to.index]);
    return true;
  }

  __device__ __forceinline__ void carry_lse(int n) const {
    const Item& item = shared.items[n % Memory::kItems];
#pragma unroll 1
    for (int row = thread(); row < item.tile.rows; row += kThreads) {
      *cuda::f32_row(p.lse, item.batch, token_of(g, item.tile, row), item.head) =
          shared.lse[n & 1][row];
    }
  }

  /// What consumers left of item n. False where they left nothing, for the launch was aborted.
  __device__ __forceinline__ bool carry(int n) const {
    const Place<2> place(n);
    wait(&shared.out_full[place.index], place.full);
    if (shared.aborted != 0) return false;
    if (Memory::kQueries == 2 && p.finish) {
      each_piece(p.out, n, [](std::uint16_t* to, std::uint32_t from, bool real) {
        if (real) *reinterpret_cast<uint4*>(to) = load_shared16(from);
      });
    }
    carry_lse(n);
    release(&shared.item_empty[n % Memory::kItems]);
    return true;
  }

  /// Queries go ahead of output by one item.
  __device__ __forceinline__ void run() const {
    bool more = true;
    for (int n = 0; more; ++n) {
      more = fetch(n);
      if (n > 0 && !carry(n - 1)) return;
    }
  }
};

}  // namespace annulus::attn::sm90
