// FlashAttention-2 backward (Dao 2023) on tensor cores, sm_80 and up. One block of eight warps
// holds a key tile of up to 128 keys of one key/value head, K and V in shared memory, dK and dV in
// registers, and streams the query rows that see it, of every query head of the group: five
// products a step of 64 (head_dim 128) or 128 (64) rows.
//
//   S^T = K Q^T, dP^T = V dO^T   warp: 32 keys x half of the rows; registers
//   dV += P^T dO, dK += dS^T Q   warp: the same 32 keys x half of the dims; registers, all launch
//   dQ += dS K                   warp: 32 rows x 32 dims; added to memory
//
// P^T and dS^T are left operands as they stand in registers (the layout of a product is that of an
// operand), so a warp goes from scores to the products over its own rows without waiting for
// anyone; the other half of the rows it gets from its partner, the warp of the same keys, through
// shared memory, where dQ finds dS as well.
//
// dQ is added in whatever order blocks come, or, where the launch asks for `deterministic`, when a
// key tile's turn comes (TilePlace), later keys first. Blocks then start with the last key tile, so
// whom a block waits for has started before it. One thread publishes a turn after the barrier that
// follows the additions: a barrier and a fence of one thread order those of the whole block (PTX
// memory model, cumulativity).
//
//   shared memory   K, V [128][dim], Q, dO [2 stages][rows][dim], P, dS [128][rows], the rows'
//                   numbers [2][rows]: 161 to 163 KB, one block an SM
//   workspace       one int a half query tile and head: the turns
//   limits          those of flash2_forward.cuh, and key tiles of at most 128 keys
#pragma once

#include "attention/kernels/cuda/flash2_backward_block.cuh"
#include "attention/kernels/cuda/launch.h"

namespace annulus::attn::cuda {

template <typename T, int kDim, bool kCapped, bool kOrdered>
struct Flash2Backward : Flash2BackwardBlock<T, kDim> {
  using Block = Flash2BackwardBlock<T, kDim>;
  using Shared = typename Block::Shared;
  using Block::batch, Block::kv_head, Block::lane, Block::warp, Block::key0, Block::half;
  using Block::begin, Block::end, Block::keys, Block::heads, Block::segment, Block::first_key;
  using Block::g, Block::p, Block::shared;
  using Block::kRows, Block::kKeys;
  static constexpr int kHalfRows = kRows / 2;
  static constexpr int kHalfDim = kDim / 2;
  static constexpr int kScoreTiles = kHalfRows / 8;
  static constexpr int kDkvTiles = kHalfDim / 8;
  static constexpr int kDqWarps = kRows / 32;  ///< over the rows of dQ; the others over its dims

  using Scores = float[2][kScoreTiles][4];          ///< S^T or dP^T of the warp
  using Packed = std::uint32_t[2][kScoreTiles][2];  ///< the same, rounded: pairs of rows
  using Gradients = float[2][kDkvTiles][4];

  Gradients dk, dv;

  // In any order the first tiles first: under a causal mask those are the long ones.
  __device__ Flash2Backward(const Geometry& geometry, const BackwardParams& params, int* counters,
                            Shared& memory)
      : Block(geometry, params, counters, memory,
              kOrdered ? geometry.key_tile_count - 1 - static_cast<int>(blockIdx.x)
                       : static_cast<int>(blockIdx.x)) {}

  /// s += A B^T over dims, of the warp's keys of A and its half of the rows of B.
  __device__ void find_scores(Scores& s, const void* of_keys, const void* of_rows) const {
    clear(s);
    const auto a_place =
        down_place<kDim>(shared_address(of_keys), lane) + static_cast<unsigned>(key0 * kDim * 2);
    const auto b_place = across_place<kDim>(shared_address(of_rows), lane) +
                         static_cast<unsigned>(half * kHalfRows * kDim * 2);
    multiply_ahead<T, 2, kScoreTiles, kDim>(
        s,
        [&](std::uint32_t(&a)[4], int m, int dim) { load_blocks(a, piece<kDim>(a_place, m, dim)); },
        [&](std::uint32_t(&b)[4], int n, int dim) {
          load_blocks(b, piece<kDim>(b_place, n, dim));
        });
  }

  /// Lane l: which of the warp's 32 keys row l of its half sees (32 rows from `row` on).
  __device__ std::uint32_t visible_bits(const Step& step, int row) const {
    const int r = half * kHalfRows + row + lane;
    if (r >= step.rows) return 0;
    const std::int64_t first = segment.position + first_key * segment.stride;
    const VisibleKeys visible =
        step.full ? all_keys(step.keys)
                  : visible_keys(g, step.row + r, first, segment.stride, step.keys);
    return visible.bits(key0);
  }

  /// P^T into s and dS^T (without softmax_scale) into dp.
  template <bool kMasked>
  __device__ void differentiate(Scores& s, Scores& dp, const Step& step, int stage) const {
    const auto cap = static_cast<float>(g.softcap);
    const auto scale = static_cast<float>(g.softmax_scale);
    const float factor = kCapped ? cap * kLog2E : scale * kLog2E;
    const float to_tanh = kCapped ? scale / cap : 0.0F;
    const int row0 = half * kHalfRows + 2 * (lane & 3);
    std::uint32_t bits = 0;
#pragma unroll
    for (int n = 0; n < kScoreTiles; ++n) {
      if (kMasked && n % 4 == 0) bits = visible_bits(step, 8 * n);
      const float4 both = *reinterpret_cast<const float4*>(&shared.numbers[stage][row0 + 8 * n]);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float lse = e == 0 ? both.x : both.z;
        const float delta = e == 0 ? both.y : both.w;
        std::uint32_t seen = 0;  // bit 8 i: key 8 i + lane / 4
        if (kMasked) {
          seen = __shfl_sync(0xffffffffU, bits, 8 * (n % 4) + 2 * (lane & 3) + e) >> (lane >> 2);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& x = s[i / 2][n][2 * (i % 2) + e];
          float& d = dp[i / 2][n][2 * (i % 2) + e];
          d -= delta;
          if (kCapped) {
            const float t = tanh_fast(x * to_tanh);
            d *= 1.0F - t * t;
            x = t;
          }
          x = exp2_fast(fmaf(x, factor, -lse));
          d *= x;
          if (kMasked && ((seen >> (8 * i)) & 1U) == 0) {
            x = 0.0F;
            d = 0.0F;
          }
        }
      }
    }
  }

  __device__ static void round_scores(Packed& to, const Scores& s) {
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int n = 0; n < kScoreTiles; ++n) {
        to[m][n][0] = pack(s[m][n][0], s[m][n][1], T());
        to[m][n][1] = pack(s[m][n][2], s[m][n][3], T());
      }
    }
  }

  /// As [key][row].
  __device__ void store_scores(void* to, const Packed& s) const {
    const std::uint32_t place =
        piece<kRows>(swizzled<kRows>(shared_address(to), lane >> 2, 0), key0, half * kHalfRows) +
        4U * (lane & 3);
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int n = 0; n < kScoreTiles; ++n) {
          asm volatile("st.shared.u32 [%0], %1;" ::"r"(piece<kRows>(place, 16 * m + 8 * h, 8 * n)),
                       "r"(s[m][n][h])
                       : "memory");
        }
      }
    }
  }

  /// Place of the warp's half of the dims, in the rows of half `rows`.
  __device__ std::uint32_t rows_place(const void* of_rows, int rows) const {
    return piece<kDim>(down_place<kDim>(shared_address(of_rows), lane), rows * kHalfRows,
                       half * kHalfDim);
  }

  /// sum += scores^T rows, over the warp's own half of the rows.
  __device__ void add_own(Gradients& sum, const Packed& scores, const void* of_rows) const {
    const std::uint32_t b_place = rows_place(of_rows, half);
    multiply_ahead<T, 2, kDkvTiles, kHalfRows>(
        sum,
        [&](std::uint32_t(&a)[4], int m, int row) {
          a[0] = scores[m / 16][row / 8][0];
          a[1] = scores[m / 16][row / 8][1];
          a[2] = scores[m / 16][row / 8 + 1][0];
          a[3] = scores[m / 16][row / 8 + 1][1];
        },
        [&](std::uint32_t(&b)[4], int n, int row) {
          load_blocks_transposed(b, piece<kDim>(b_place, row, n));
        });
  }

  /// The same over the other half, whose scores are in shared memory.
  __device__ void add_partner(Gradients& sum, const void* scores, const void* of_rows) const {
    const std::uint32_t a_place =
        piece<kRows>(down_place<kRows>(shared_address(scores), lane), key0, (half ^ 1) * kHalfRows);
    const std::uint32_t b_place = rows_place(of_rows, half ^ 1);
    multiply_ahead<T, 2, kDkvTiles, kHalfRows>(
        sum,
        [&](std::uint32_t(&a)[4], int m, int row) {
          load_blocks(a, piece<kRows>(a_place, m, row));
        },
        [&](std::uint32_t(&b)[4], int n, int row) {
          load_blocks_transposed(b, piece<kDim>(b_place, row, n));
        });
  }

  __device__ void find_dq(float (&dq)[2][4][4], int row0, int dim0) const {
    clear(dq);
    const std::uint32_t a_place =
        piece<kRows>(across_place<kRows>(shared_address(shared.ds), lane), 0, row0);
    const std::uint32_t b_place =
        piece<kDim>(down_place<kDim>(shared_address(shared.k), lane), 0, dim0);
    multiply_ahead<T, 2, 4, kKeys>(
        dq,
        [&](std::uint32_t(&a)[4], int m, int key) {
          load_blocks_transposed(a, piece<kRows>(a_place, key, m));
        },
        [&](std::uint32_t(&b)[4], int n, int key) {
          load_blocks_transposed(b, piece<kDim>(b_place, key, n));
        });
  }

  /// 16 rows of the warp's dQ. L2 takes whole rows of 128 bytes fastest.
  __device__ void add_dq(const Step& step, const float (&dq)[4][4], int row0, int dim0) const {
    const auto scale = static_cast<float>(g.softmax_scale);
    float4 rows[4];
    gather_rows(rows, dq, lane);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = row0 + 4 * i + ((lane >> 2) & 3);
      if (r >= step.rows) continue;
      const float4 v = rows[i];
      add_in_memory(f32_row(p.dq, batch, step.token + r, step.head) + dim0 + columns_of_row(lane),
                    make_float4(v.x * scale, v.y * scale, v.z * scale, v.w * scale));
    }
  }

  /// What needs the scores of other warps.
  __device__ void add_exchanged(const Step& step, const void* q, const void* dout) {
    add_partner(dv, shared.p, dout);
    add_partner(dk, shared.ds, q);
    const int row0 = 32 * (warp % kDqWarps);
    const int dim0 = 32 * (warp / kDqWarps);
    float dq[2][4][4];
    find_dq(dq, row0, dim0);
    if (kOrdered) this->await_dq(step);
    add_dq(step, dq[0], row0, dim0);
    add_dq(step, dq[1], row0 + 16, dim0);
  }

  /// Rounded once, or in f32, added to where the launch says so.
  __device__ void store_keys(const Output& operand, const Gradients& sum, float factor) const {
    const bool rounds = operand.dtype != DType::f32;
    std::byte* const base = row_bytes(operand, batch, segment.token + first_key, kv_head);
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      const int key = key0 + 16 * m + (lane >> 2) + 8 * (lane & 1);
#pragma unroll
      for (int n = 0; n < kDkvTiles; ++n) {
        const float4 v = four_columns(sum[m][n], lane);
        if (key >= keys) continue;
        const std::int64_t i =
            key * operand.token_stride + half * kHalfDim + 2 * (lane & 2) + 8 * n;
        if (rounds) {
          *reinterpret_cast<uint2*>(base + 2 * i) = make_uint2(
              pack(v.x * factor, v.y * factor, T()), pack(v.z * factor, v.w * factor, T()));
          continue;
        }
        auto* to = reinterpret_cast<float4*>(base + 4 * i);
        const float4 old = p.dkv_assign ? make_float4(0.0F, 0.0F, 0.0F, 0.0F) : *to;
        *to = make_float4(fmaf(v.x, factor, old.x), fmaf(v.y, factor, old.y),
                          fmaf(v.z, factor, old.z), fmaf(v.w, factor, old.w));
      }
    }
  }

  /// The five products of a step.
  __device__ void add_step(const Step& step, int stage, const RowNumbers& of_next) {
    const void* q = shared.q[stage];
    const void* dout = shared.dout[stage];
    Packed p_own, ds_own;
    {
      Scores s, dp;
      find_scores(s, shared.k, q);
      find_scores(dp, shared.v, dout);
      if (step.full && step.keys == kKeys) {
        differentiate<false>(s, dp, step, stage);
      } else {
        differentiate<true>(s, dp, step, stage);
      }
      round_scores(p_own, s);
      round_scores(ds_own, dp);
    }
    store_scores(shared.p, p_own);
    store_scores(shared.ds, ds_own);
    add_own(dv, p_own, dout);
    add_own(dk, ds_own, q);
    this->keep_numbers(of_next, stage ^ 1);
    __syncthreads();  // P and dS are there
    add_exchanged(step, q, dout);
  }

  __device__ void stream_rows() {
    for (int i = 0;; ++i) {
      const int stage = i & 1;
      if (threadIdx.x == 0) this->await_rows_of(shared.steps[(i + 1) & 3]);  // to be copied now
      wait_copies<0>();
      __syncthreads();  // this stage is there; the last one, P and dS are free; all have added dQ
      if (kOrdered && threadIdx.x == 0 && i > 0) this->pass_turn(shared.steps[(i - 1) & 3]);
      const Step& step = shared.steps[i & 3];
      if (step.rows == 0 || shared.aborted != 0) return;
      const Step& next = shared.steps[(i + 1) & 3];
      const RowNumbers numbers = this->copy_rows_of(next, stage ^ 1);
      if (threadIdx.x == 0) {
        shared.walker.plan(g, heads, begin, end, shared.steps[(i + 2) & 3]);
      }
      add_step(step, stage, numbers);
    }
  }

  __device__ void run() {
    const TileTotals totals = totals_of(g.tiles_by_key, begin, end);
    keys = totals.keys;
    if (threadIdx.x == 0) {
      count_flops(g, 2 * totals.pairs * (heads.last - heads.first) * 5 * kDim);
      shared.aborted = 0;
      shared.counted = 0;
      shared.seen = 0;
      shared.walker = {heads.first, begin, 0};
      shared.walker.plan(g, heads, begin, end, shared.steps[0]);
      shared.walker.plan(g, heads, begin, end, shared.steps[1]);
    }
    if (!await_keys(g, segment, kv_head, first_key, keys)) return;
    this->copy_keys(shared.k, keys_of(g, p, segment.source));
    this->copy_keys(shared.v, values_of(g, p, segment.source));
    if (threadIdx.x == 0) this->await_rows_of(shared.steps[0]);
    __syncthreads();  // the first steps are planned
    this->keep_numbers(this->copy_rows_of(shared.steps[0], 0), 0);
    clear(dk);
    clear(dv);
    stream_rows();
    store_keys(p.dk, dk, static_cast<float>(g.softmax_scale));
    store_keys(p.dv, dv, 1.0F);
    say_done(p.done, kv_head);
  }
};

template <typename T, int kDim, bool kCapped, bool kOrdered>
__global__ void __launch_bounds__(256, 1)
    flash2_backward_kernel(const __grid_constant__ Geometry g,
                           const __grid_constant__ BackwardParams p, int* turns) {
  extern __shared__ __align__(1024) char memory[];
  Flash2Backward<T, kDim, kCapped, kOrdered> block(
      g, p, turns, *reinterpret_cast<Flash2BackwardShared<T, kDim>*>(memory));
  block.run();
}

template <typename T, int kDim>
KernelEntries flash2_backward_entries() {
  return entries_of(
      &flash2_backward_kernel<T, kDim, false, false>, &flash2_backward_kernel<T, kDim, false, true>,
      &flash2_backward_kernel<T, kDim, true, false>, &flash2_backward_kernel<T, kDim, true, true>);
}

template <typename T, int kDim>
void launch_flash2_backward(const BackwardParams& params, const LaunchContext& context) {
  constexpr int kBytes = sizeof(Flash2BackwardShared<T, kDim>);
  static_assert(kBytes <= 163 * 1024);
  const Geometry g = geometry_of(params.geometry, context);
  using Launch = void (*)(Geometry, BackwardParams, int*);
  constexpr Launch kKernels[2][2] = {{&flash2_backward_kernel<T, kDim, false, false>,
                                      &flash2_backward_kernel<T, kDim, false, true>},
                                     {&flash2_backward_kernel<T, kDim, true, false>,
                                      &flash2_backward_kernel<T, kDim, true, true>}};
  const Launch kernel = kKernels[g.softcap != 0.0][context.deterministic];
  allow_shared_memory(reinterpret_cast<const void*>(kernel), kBytes);
  const dim3 grid(static_cast<unsigned>(g.key_tile_count), static_cast<unsigned>(g.kv_heads),
                  static_cast<unsigned>(g.batch));
  kernel<<<grid, 256, kBytes, static_cast<cudaStream_t>(context.stream)>>>(
      g, params, reinterpret_cast<int*>(context.workspace.data()));
  check_launch("flash2 backward");
}

}  // namespace annulus::attn::cuda
