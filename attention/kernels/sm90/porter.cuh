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
  // A row is moved in pieces of 16 bytes. A warp takes every third unit of 16 rows, of queries as
  // of output, and so overwrites what it alone has read.
  static constexpr int kPieces = kDim / 8;
  static constexpr int kLanes = kPieces & -kPieces;  ///< at a row: the powers of 2 in kPieces
  static constexpr int kParts = kPieces / kLanes;
  static constexpr int kRowStep = 32 / kLanes;
  static constexpr int kUnitRows = 16;
  static constexpr int kMoves = kUnitRows / kRowStep;  ///< of a lane, in a unit

  const cuda::Geometry& g;
  const ForwardParams& p;
  Memory& shared;

  __device__ __forceinline__ Porter(const cuda::Geometry& geometry, const ForwardParams& params,
                                    Memory& memory)
      : g(geometry), p(params), shared(memory) {}

  __device__ __forceinline__ static int lane() { return thread_again() % 32; }
  __device__ __forceinline__ static int warp() { return thread_again() / 32 - 1; }

  __device__ __forceinline__ void release(std::uint64_t* barrier) const {
    __syncwarp();
    if (lane() == 0) arrive(barrier);
  }

  /// move(where a row's piece lies, where it is in shared memory, does the tile have the row) for
  /// all rows of item n of which this lane has a piece. Rows of one query segment, as they nearly
  /// always are, follow each other by the stride.
  template <typename Pointer, typename Move>
  __device__ __forceinline__ void each_piece(const Operand<Pointer>& operand, int n,
                                             Move&& move) const {
    const Item& item = shared.items[n % Memory::kItems];
#pragma unroll 1
    for (int part = 0; part < kParts; ++part) {
      const int piece = lane() % kLanes + part * kLanes;
      auto* const base = element_at(operand, item.batch, 0, item.head) + 8 * piece;
#pragma unroll 1
      for (int row = warp() * kUnitRows + lane() / kLanes; row < kRows;
           row += kPorters * kUnitRows) {
        const std::uint32_t unit =
            shared_address(shared.q[n % Memory::kQueries][row / kGroupRows]) +
            place_in_matrix(kGroupRows, row % kGroupRows, piece);
        // Rows of a unit differ in bits of their own: so steps are added, and the swizzle's are
        // XORed.
        const auto place = [&](int i) {
          return (unit + i * kRowStep * kRowBytes) ^ (16 * (i * kRowStep % 8));
        };
        const int rows = item.tile.rows - row;
        if (item.tile.token >= 0) {
          auto* at = base + (item.tile.token + row) * operand.token_stride;
#pragma unroll
          for (int i = 0; i < kMoves; ++i, at += kRowStep * operand.token_stride) {
            move(at, place(i), i * kRowStep < rows);
          }
        } else {
#pragma unroll 1
          for (int i = 0; i < kMoves; ++i) {
            const bool real = i * kRowStep < rows;
            const std::int64_t token = real ? token_of(g, item.tile, row + i * kRowStep) : 0;
            move(base + token * operand.token_stride, place(i), real);
          }
        }
      }
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
    for (int row = warp() * 32 + lane(); row < item.tile.rows; row += kThreads) {
      *cuda::f32_row(p.lse, item.batch, place_of(g, item.tile, row), item.head) =
          shared.lse[n % Memory::kOuts][row];
    }
  }

  /// What consumers left of item n. False where they left nothing, for the launch was aborted.
  __device__ __forceinline__ bool carry(int n) const {
    const Place<Memory::kOuts> place(n);
    wait(&shared.out_full[place.index], place.full);
    if (shared.aborted != 0) return false;
    if (Memory::kQueries > 1 && p.finish) {
      each_piece(p.out, n, [](std::uint16_t* to, std::uint32_t from, bool real) {
        if (real) *reinterpret_cast<uint4*>(to) = load_shared16(from);
      });
    }
    carry_lse(n);
    release(&shared.item_empty[n % Memory::kItems]);
    return true;
  }

  /// Segments and tiles, which the loader reads before its first copy: while the kernel before
  /// still runs, which does not write segments; tiles it may, so that these come to L2 alone.
  __device__ __forceinline__ void prefetch_lists() const {
    constexpr int kLine = 128;
    const int at = lane() * kLine;
    if (warp() == 0 && at < static_cast<int>(sizeof(KeySegment)) * min(g.key_count, kLine)) {
      prefetch(reinterpret_cast<const unsigned char*>(g.keys) + at);
    }
    if (warp() == 1 && at < static_cast<int>(sizeof(Tile)) * min(g.tile_count, kLine)) {
      prefetch_to_l2(reinterpret_cast<const unsigned char*>(g.tiles) + at);
    }
  }

  /// Queries go ahead of output by as many items as have room, or by one.
  __device__ __forceinline__ void run() const {
    constexpr int kLead = Memory::kQueries > 1 ? Memory::kQueries - 1 : 1;
    // LSE of item n is carried away before queries of n + kOuts come, which consumers await before
    // they write there again.
    static_assert(Memory::kOuts >= kLead + 1);
    prefetch_lists();
    bool more = true;
    for (int n = 0, left = kLead; left > 0; ++n) {
      more = more && fetch(n);
      if (!more) --left;
      if (n >= kLead && !carry(n - kLead)) return;
    }
  }
};

}  // namespace annulus::attn::sm90
