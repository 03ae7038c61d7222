// Grouped product of experts on Hopper: rows of expert e times its matrix, one launch for all.
//
//   work       one block an SM takes tiles blockIdx.x, + gridDim.x, ... in the order of walk.cuh,
//              which every role finds for itself from the same numbers
//   roles      warpgroup 0: its first thread loads, boxes of 64 of k by the copy engine, as far
//              ahead as stages allow, into the next tile while consumers store this one.
//              Warpgroups 1 to kGroups: products, 64 rows each by all columns of the tile
//              (m64n256k16), one stage's in flight while the next is started
//   shared     kStages x (A: kGroups * 64 x 64, B: 64 x kColumns), 128-byte swizzle (layout.cuh);
//              2 KB a consumer warp to turn results; barriers
//   barriers   full: the copies' bytes. empty: every consumer warp is done with a stage
//   tails      a row tile's last rows are the next expert's, or beyond the tensor and 0: computed,
//              not stored. Beyond k and n boxes are 0. A warpgroup without rows computes nothing
//   limits     bf16, n a multiple of 8, rows of all operands 16-byte aligned (suits of grouped.h)
#pragma once

#include "attention/kernels/sm90/layout.cuh"
#include "attention/kernels/sm90/ptx.cuh"
#include "moe/kernels/sm90/products.cuh"
#include "moe/kernels/sm90/walk.cuh"

namespace annulus::moe::sm90 {

namespace ptx = attn::sm90;

inline constexpr int kDepth = 64;  ///< of k in a stage
inline constexpr int kGroupThreads = 128;

/// Maps of both operands: a [rows][k]; b [expert][n][k], or [expert][k][n].
struct Maps {
  CUtensorMap a, b;
};

template <int kGroups, int kColumns, int kStages>
struct Shared {
  static constexpr int kRows = 64 * kGroups;
  static constexpr int kWarps = 4 * kGroups;  ///< that consume
  static constexpr int kStageBytes = (kRows + kColumns) * kDepth * 2;

  unsigned char a[kStages][kRows * kDepth * 2];
  unsigned char b[kStages][kColumns * kDepth * 2];
  unsigned char out[kWarps][16 * ptx::kRowBytes];  ///< 16 rows of 64 columns
  std::uint64_t full[kStages];
  std::uint64_t empty[kStages];
};

/// Place in the ring of stages; the parity of its `full` there.
template <int kStages>
struct Ring {
  int index = 0;
  std::uint32_t parity = 0;
  __device__ __forceinline__ void next() {
    if (++index < kStages) return;
    index = 0;
    parity ^= 1U;
  }
};

__device__ __forceinline__ int steps_of(const Grouped& g) { return (g.k + kDepth - 1) / kDepth; }

/// One thread.
template <int kGroups, int kColumns, int kStages, bool kAcross>
__device__ __forceinline__ void load_tiles(const Grouped& g, const Maps& maps,
                                           Shared<kGroups, kColumns, kStages>& shared) {
  using Memory = Shared<kGroups, kColumns, kStages>;
  ptx::prefetch_map(maps.a);
  ptx::prefetch_map(maps.b);
  Walk<Memory::kRows, kColumns> walk(g);
  Ring<kStages> ring;
  Tile tile;
  const int steps = steps_of(g);
  for (int t = static_cast<int>(blockIdx.x); walk.find(t, tile); t += static_cast<int>(gridDim.x)) {
    for (int step = 0; step < steps; ++step, ring.next()) {
      std::uint64_t* const full = &shared.full[ring.index];
      ptx::wait(&shared.empty[ring.index], ring.parity ^ 1U);
      ptx::arrive_expecting(full, Memory::kStageBytes);
      const std::uint32_t b = ptx::shared_address(shared.b[ring.index]);
      ptx::copy_box(ptx::shared_address(shared.a[ring.index]), maps.a, full, step * kDepth,
                    tile.row, 0, 0);
      if constexpr (kAcross) {
#pragma unroll
        for (int i = 0; i < kColumns / ptx::kBlockWidth; ++i) {
          ptx::copy_box(b + static_cast<std::uint32_t>(i * kDepth * ptx::kRowBytes), maps.b, full,
                        tile.column + i * ptx::kBlockWidth, step * kDepth, tile.expert, 0);
        }
      } else {
        ptx::copy_box(b, maps.b, full, step * kDepth, tile.column, tile.expert, 0);
      }
    }
  }
}

/// One thread of a consumer warpgroup.
template <int kGroups, int kColumns, int kStages, bool kAcross>
struct Consumer {
  using Memory = Shared<kGroups, kColumns, kStages>;

  const Grouped& g;
  Memory& shared;
  int warp;  ///< of the consumers', known to be one for the whole warp
  int lane;
  Ring<kStages> ring;
  float d[kColumns / 2];

  __device__ __forceinline__ Consumer(const Grouped& grouped, Memory& memory)
      : g(grouped),
        shared(memory),
        warp(ptx::of_warp((static_cast<int>(threadIdx.x) - kGroupThreads) / 32)),
        lane(static_cast<int>(threadIdx.x) % 32) {}

  __device__ __forceinline__ void release(int stage) const {
    if (lane == 0) ptx::arrive(&shared.empty[stage]);
  }

  /// All of k, of one tile.
  __device__ __forceinline__ void multiply(int steps) {
    ptx::drop(d);
    int before = 0;
    for (int step = 0; step < steps; ++step) {
      ptx::wait(&shared.full[ring.index], ring.parity);
      const ptx::Matrix a =
          ptx::along_rows(ptx::shared_address(shared.a[ring.index]) +
                          static_cast<std::uint32_t>(warp / 4 * 64 * ptx::kRowBytes));
      const std::uint32_t at = ptx::shared_address(shared.b[ring.index]);
      const ptx::Matrix b = kAcross ? ptx::across_rows(at, kDepth) : ptx::along_rows(at);
      ptx::fence_products();
#pragma unroll
      for (int k = 0; k < kDepth / 16; ++k) {
        product<kAcross>(
            d, a.at(ptx::step_along_rows(k, Memory::kRows)),
            b.at(kAcross ? ptx::step_across_rows(k) : ptx::step_along_rows(k, kColumns)),
            step > 0 || k > 0);
      }
      ptx::commit_products();
      if (step > 0) {
        ptx::wait_products<1>();
        release(before);
      }
      before = ring.index;
      ring.next();
    }
    ptx::wait_products<0>(d);
    release(before);
  }

  /// What others compute from.
  __device__ __forceinline__ void pass_by(int steps) {
    for (int step = 0; step < steps; ++step, ring.next()) {
      ptx::wait(&shared.full[ring.index], ring.parity);
      release(ring.index);
    }
  }

  /// The warp's 16 rows, 64 columns at a time: 128 bytes of a row go together.
  __device__ __forceinline__ void store(const Tile& tile) {
    const std::uint32_t out = ptx::shared_address(shared.out[warp]);
    // Of stmatrix: matrix lane / 8 is rows 0 to 7 or 8 to 15 of one of two chunks.
    const int matrix_row = lane % 16;
    const int chunk = lane % 8, row = lane / 8;
    auto* const c = static_cast<unsigned char*>(g.c);
#pragma unroll
    for (int block = 0; block < kColumns / 64; ++block) {
#pragma unroll
      for (int j = 0; j < 8; j += 2) {
        std::uint32_t packs[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int from = 4 * (8 * block + j + i / 2) + 2 * (i % 2);
          packs[i] = ptx::pack(d[from], d[from + 1], ptx::Bf16());
        }
        ptx::store_matrices(out + ptx::place_in_block(matrix_row, j + lane / 16), packs);
      }
      __syncwarp();
      const int column = tile.column + 64 * block + 8 * chunk;
#pragma unroll
      for (int i = 0; i < 16; i += 4) {
        const uint4 piece = ptx::load_shared16(out + ptx::place_in_block(i + row, chunk));
        const int at = 16 * warp + i + row;
        if (at < tile.rows && column < g.n) {
          *reinterpret_cast<uint4*>(c + 2 * ((tile.row + at) * g.stride + column)) = piece;
        }
      }
      __syncwarp();
    }
  }

  __device__ __forceinline__ void run() {
    Walk<Memory::kRows, kColumns> walk(g);
    Tile tile;
    const int steps = steps_of(g);
    for (int t = static_cast<int>(blockIdx.x); walk.find(t, tile);
         t += static_cast<int>(gridDim.x)) {
      if (warp / 4 * 64 < tile.rows) {
        multiply(steps);
        store(tile);
      } else {
        pass_by(steps);
      }
    }
  }
};

/// All of a block; `memory`: sizeof(Shared), 1024-byte aligned.
template <int kGroups, int kColumns, int kStages, bool kAcross>
__device__ __forceinline__ void run_block(const Grouped& g, const Maps& maps,
                                          unsigned char* memory) {
  // At entry 512 threads have 128 registers each, and a product of 256 columns wants 154 (C7602).
  static_assert(kGroups == 2, "registers of three consumer warpgroups");
  using Memory = Shared<kGroups, kColumns, kStages>;
  auto& shared = *reinterpret_cast<Memory*>(memory);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      ptx::init_barrier(&shared.full[i], 1);
      ptx::init_barrier(&shared.empty[i], Memory::kWarps);
    }
    ptx::fence_barrier_init();
  }
  __syncthreads();
  if (threadIdx.x < kGroupThreads) {
    ptx::give_registers<40>();
    if (threadIdx.x == 0) load_tiles<kGroups, kColumns, kStages, kAcross>(g, maps, shared);
  } else {
    ptx::take_registers<232>();
    Consumer<kGroups, kColumns, kStages, kAcross>(g, shared).run();
  }
}

}  // namespace annulus::moe::sm90
