// FlashAttention-2 backward (Dao 2023) on tensor cores, sm_80 and up. One block of eight warps
// holds a key tile of up to 128 keys of one key/value head, K and V in shared memory, dK and dV in
// registers, and streams the query tiles that see it, of every query head of the group: five
// products a step of 64 (head_dim 128) or 128 (64) rows.
//
//   S = Q K^T, dP = dO V^T    warps in a grid of rows/32 x the rest; registers
//   P, dS                     rounded, through shared memory
//   dV += P^T dO, dK += dS^T Q  warps 4 (keys) x 2 (dims); registers for the whole launch
//   dQ += dS K                warps in a grid of rows/32 x the rest; added to memory
//
// Deterministic: a key tile adds to a query tile's dQ when its turn comes (TilePlace), later keys
// first. Blocks start with the last key tile, so whom a block waits for has started before it. One
// thread publishes a turn after the barrier that follows the additions: a barrier and a fence of
// one thread order those of the whole block (PTX memory model, cumulativity).
//
//   shared memory   K, V [128][dim], Q, dO [2 stages][rows][dim], P, dS [rows][128], lse and delta
//                   [2][rows]: 161 to 162 KB, one block an SM
//   workspace       one int a half query tile and head: the turns
//   limits          those of flash2_forward.cuh, and key tiles of at most 128 keys
#pragma once

#include "attention/kernels/cuda/device/blocks.cuh"
#include "attention/kernels/cuda/device/numbers.cuh"
#include "attention/kernels/cuda/launch.h"

namespace annulus::attn::cuda {

template <typename T, int kDim>
struct Flash2Backward {
  static constexpr int kRows = kDim == 64 ? 128 : 64;
  static constexpr int kKeys = 128;
  static constexpr int kThreads = 256;
  static constexpr int kRowWarps = kRows / 32;        ///< of S, dP and dQ
  static constexpr int kColumnWarps = 8 / kRowWarps;  ///< likewise
  static constexpr int kScoreTiles = kKeys / kColumnWarps / 8;
  static constexpr int kDqTiles = kDim / kColumnWarps / 8;
  static constexpr int kDkvTiles = kDim / 2 / 8;
  static constexpr int kRowBytes = kRows * kDim * 2;
  static constexpr int kKeyBytes = kKeys * kDim * 2;
  static constexpr int kScoreBytes = kRows * kKeys * 2;
  static constexpr int kStatisticBytes = kRows * 4;
  static constexpr int kSharedBytes =
      2 * kKeyBytes + 4 * kRowBytes + 2 * kScoreBytes + 4 * kStatisticBytes;

  /// Up to kRows rows of one tile and head.
  struct Step {
    int head = 0;
    int tile = 0;  ///< in tiles_by_key
    int part = 0;  ///< rows from part * kRows on
    int rows = 0;
    int row = 0;  ///< of the launch
  };

  const Geometry& g;
  const BackwardParams& p;
  int* turns;
  int batch, kv_head, lane, warp;
  int begin, end, keys;  ///< of the key tile
  HeadRange heads;
  KeySegment segment;
  std::int64_t first_key;  ///< within the segment
  std::uint32_t k_shared, v_shared, q_shared, dout_shared, p_shared, ds_shared, lse_shared;
  const float* statistics;  ///< lse [2][kRows], delta [2][kRows]

  float dk[2][kDkvTiles][4], dv[2][kDkvTiles][4];

  __device__ Flash2Backward(const Geometry& geometry, const BackwardParams& params, int* counters,
                            char* shared)
      : g(geometry), p(params), turns(counters) {
    batch = static_cast<int>(blockIdx.z);
    kv_head = static_cast<int>(blockIdx.y) + g.first_kv_head;
    lane = static_cast<int>(threadIdx.x & 31U);
    warp = static_cast<int>(threadIdx.x / 32U);
    const int key_tile = g.key_tile_count - 1 - static_cast<int>(blockIdx.x);
    begin = g.key_tiles[key_tile];
    end = g.key_tiles[key_tile + 1];
    heads = heads_of(g, kv_head);
    segment = g.keys[g.tiles_by_key[begin].segment];
    first_key = g.tiles_by_key[begin].key;
    k_shared = shared_address(shared);
    v_shared = k_shared + kKeyBytes;
    q_shared = v_shared + kKeyBytes;
    dout_shared = q_shared + 2 * kRowBytes;
    p_shared = dout_shared + 2 * kRowBytes;
    ds_shared = p_shared + kScoreBytes;
    lse_shared = ds_shared + kScoreBytes;
    statistics =
        reinterpret_cast<const float*>(shared + 2 * kKeyBytes + 4 * kRowBytes + 2 * kScoreBytes);
  }

  __device__ void set_step(Step& step, int head, int tile_index, int part) const {
    step = {head, tile_index, part, 0, 0};
    if (head >= heads.last) return;
    const Tile& tile = g.tiles_by_key[tile_index];
    step.rows = min(kRows, tile.rows - part * kRows);
    step.row = tile.row + part * kRows;
  }

  __device__ void advance(Step& step) const {
    if ((step.part + 1) * kRows < g.tiles_by_key[step.tile].rows) {
      set_step(step, step.head, step.tile, step.part + 1);
    } else if (step.tile + 1 < end) {
      set_step(step, step.head, step.tile + 1, 0);
    } else {
      set_step(step, step.head + 1, begin, 0);
    }
  }

  __device__ void copy_keys(std::uint32_t to, const Input& operand) const {
    const T* from = static_cast<const T*>(operand.data) +
                    index_of(operand, batch, segment.token + first_key, kv_head);
    copy_rows<T, kDim, kKeys, kThreads>(to, keys,
                                        [&](int i) { return from + i * operand.token_stride; });
  }

  __device__ void copy_step(const Step& step, int stage) const {
    const T* q = static_cast<const T*>(p.q.data) + index_of(p.q, batch, 0, step.head);
    const T* dout = static_cast<const T*>(p.dout.data) + index_of(p.dout, batch, 0, step.head);
    copy_rows<T, kDim, kRows, kThreads>(q_shared + stage * kRowBytes, step.rows, [&](int i) {
      return q + token_of_row(g, step.row + i) * p.q.token_stride;
    });
    copy_rows<T, kDim, kRows, kThreads>(dout_shared + stage * kRowBytes, step.rows, [&](int i) {
      return dout + token_of_row(g, step.row + i) * p.dout.token_stride;
    });
    const int i = static_cast<int>(threadIdx.x) % kRows;
    const int which = static_cast<int>(threadIdx.x) / kRows;  // 0: lse, 1: delta
    if (which < 2) {
      const bool real = i < step.rows;
      const std::int64_t token = token_of_row(g, step.row + (real ? i : 0));
      const float* from = which == 0 ? f32_row(p.lse, batch, token, step.head)
                                     : f32_row(p.delta, batch, token, step.head);
      copy4(lse_shared + static_cast<std::uint32_t>((2 * which + stage) * kStatisticBytes + 4 * i),
            from, real);
    }
  }

  /// P into s and dS (without softmax_scale) into dp.
  __device__ void differentiate(float (&s)[2][kScoreTiles][4], float (&dp)[2][kScoreTiles][4],
                                const Step& step, int stage) const {
    const Tile tile = g.tiles_by_key[step.tile];
    const bool masked = !tile.full || tile.keys < kKeys || step.rows < kRows;
    const std::int64_t first = segment.position + tile.key * segment.stride;
    const bool capped = g.softcap != 0.0;
    const auto softcap = static_cast<float>(g.softcap);
    const auto scale = static_cast<float>(g.softmax_scale);
    const float factor = capped ? softcap * kLog2E : scale * kLog2E;
    const float to_tanh = capped ? scale / softcap : 0.0F;
    const int row0 = 32 * (warp % kRowWarps) + (lane >> 2);
    const int column0 = kScoreTiles * 8 * (warp / kRowWarps) + 2 * (lane & 3);
    VisibleKeys mine = all_keys(0);  // of row 32 (warp % kRowWarps) + lane
    const int my_row = 32 * (warp % kRowWarps) + lane;
    if (masked && my_row < step.rows) {
      mine = tile.full ? all_keys(tile.keys)
                       : visible_keys(g, step.row + my_row, first, segment.stride, tile.keys);
    }
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int r = row0 + 16 * m + 8 * h;
        float lse = statistics[stage * kRows + r] * kLog2E;
        float delta = statistics[(2 + stage) * kRows + r];
        if (lse == -kInfinity) {  // saw no key: P is 0
          lse = kInfinity;
          delta = 0.0F;
        }
        const VisibleKeys visible = from_lane(mine, 16 * m + 8 * h + (lane >> 2));
#pragma unroll
        for (int n = 0; n < kScoreTiles; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            float& x = s[m][n][2 * h + e];
            float& d = dp[m][n][2 * h + e];
            float slope = 1.0F;
            if (capped) {
              x = tanh_fast(x * to_tanh);
              slope = 1.0F - x * x;
            }
            x = exp2_fast(fmaf(x, factor, -lse));
            d = x * (d - delta) * slope;
            if (masked && !visible.sees(column0 + 8 * n + e)) {
              x = 0.0F;
              d = 0.0F;
            }
          }
        }
      }
    }
  }

  /// Rounded, as [row][key].
  __device__ void store_scores(std::uint32_t to, const float (&s)[2][kScoreTiles][4]) const {
    const int row0 = 32 * (warp % kRowWarps) + (lane >> 2);
    const int chunk0 = kScoreTiles * (warp / kRowWarps);
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int n = 0; n < kScoreTiles; ++n) {
          const std::uint32_t at =
              swizzled<kKeys>(to, row0 + 16 * m + 8 * h, chunk0 + n) + 4 * (lane & 3);
          const std::uint32_t pair = pack(s[m][n][2 * h], s[m][n][2 * h + 1], T());
          asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(pair) : "memory");
        }
      }
    }
  }

  __device__ void find_scores(float (&s)[2][kScoreTiles][4], std::uint32_t rows,
                              std::uint32_t columns) const {
    const int row0 = 32 * (warp % kRowWarps);
    const int column0 = kScoreTiles * 8 * (warp / kRowWarps);
    clear(s);
    multiply<T, 2, kScoreTiles, kDim>(
        s,
        [&](std::uint32_t(&a)[4], int m, int dim) { load_a<kDim>(a, rows, row0 + m, dim, lane); },
        [&](std::uint32_t(&b)[4], int n, int dim) {
          load_b<kDim>(b, columns, column0 + n, dim, lane);
        });
  }

  /// Keys 32 (warp / 2) .., dims kDim/2 (warp % 2) ..: sum += scores^T rows.
  __device__ void add_to_keys(float (&sum)[2][kDkvTiles][4], std::uint32_t scores,
                              std::uint32_t rows) const {
    const int key0 = 32 * (warp / 2);
    const int dim0 = kDim / 2 * (warp % 2);
    multiply<T, 2, kDkvTiles, kRows>(
        sum,
        [&](std::uint32_t(&a)[4], int m, int row) {
          load_a_transposed<kKeys>(a, scores, key0 + m, row, lane);
        },
        [&](std::uint32_t(&b)[4], int n, int row) {
          load_b_transposed<kDim>(b, rows, dim0 + n, row, lane);
        });
  }

  __device__ void add_dq(const Step& step) const {
    const int row0 = 32 * (warp % kRowWarps);
    const int dim0 = kDqTiles * 8 * (warp / kRowWarps);
    float dq[2][kDqTiles][4];
    clear(dq);
    multiply<T, 2, kDqTiles, kKeys>(
        dq,
        [&](std::uint32_t(&a)[4], int m, int key) {
          load_a<kKeys>(a, ds_shared, row0 + m, key, lane);
        },
        [&](std::uint32_t(&b)[4], int n, int key) {
          load_b_transposed<kDim>(b, k_shared, dim0 + n, key, lane);
        });
    const auto scale = static_cast<float>(g.softmax_scale);
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      const int r = row0 + 16 * m + (lane >> 2) + 8 * (lane & 1);
      const bool real = r < step.rows;
      const std::int64_t token = token_of_row(g, step.row + (real ? r : 0));
      float* to = f32_row(p.dq, batch, token, step.head) + dim0 + 2 * (lane & 2);
#pragma unroll
      for (int n = 0; n < kDqTiles; ++n) {
        const float4 v = four_columns(dq[m][n], lane);
        if (real) {
          add_in_memory(to + 8 * n,
                        make_float4(v.x * scale, v.y * scale, v.z * scale, v.w * scale));
        }
      }
    }
  }

  __device__ int* counter(const Step& step, int half) const {
    return turns + turn_index(g, batch, step.head, g.places[step.tile].row_tile, half);
  }

  /// One thread, after all of the block have added: the next key tile may. Halves that the tile
  /// does not reach are passed on with its last part.
  __device__ void pass_turn(const Step& step) const {
    const int turn = g.places[step.tile].turn;
    __threadfence();
    store_release(counter(step, step.part), turn + 1);
    if ((step.part + 1) * kRows < g.tiles_by_key[step.tile].rows) return;
    for (int half = step.part + 1; half < 128 / kRows; ++half) {
      if (!await_turn(g, counter(step, half), turn)) return;
      store_release(counter(step, half), turn + 1);
    }
  }

  __device__ void store_keys(const Output& operand, const float (&sum)[2][kDkvTiles][4],
                             float factor) const {
    const int dim0 = kDim / 2 * (warp % 2) + 2 * (lane & 2);
    float* base = f32_row(operand, batch, segment.token + first_key, kv_head) + dim0;
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      const int key = 32 * (warp / 2) + 16 * m + (lane >> 2) + 8 * (lane & 1);
#pragma unroll
      for (int n = 0; n < kDkvTiles; ++n) {
        const float4 v = four_columns(sum[m][n], lane);
        if (key >= keys) continue;
        auto* to = reinterpret_cast<float4*>(base + key * operand.token_stride + 8 * n);
        const float4 old = *to;  // cleared before, where the launch assigns
        *to = make_float4(fmaf(v.x, factor, old.x), fmaf(v.y, factor, old.y),
                          fmaf(v.z, factor, old.z), fmaf(v.w, factor, old.w));
      }
    }
  }

  __device__ void run() {
    const TileTotals totals = totals_of(g.tiles_by_key, begin, end);
    keys = totals.keys;
    if (!await_segment(g, segment)) return;
    Step step;
    set_step(step, heads.first, begin, 0);
    copy_keys(k_shared, p.k);
    copy_keys(v_shared, p.v);
    copy_step(step, 0);
    commit_copies();
    if (threadIdx.x == 0) {
      count_flops(g, 2 * totals.pairs * (heads.last - heads.first) * 5 * kDim);
    }
    clear(dk);
    clear(dv);
    Step last = step;
    bool added = false;
    for (int stage = 0; step.head < heads.last; stage ^= 1) {
      Step next = step;
      advance(next);
      wait_copies<0>();
      __syncthreads();  // this stage is there; the last one, P and dS are free; all have added dQ
      if (added && threadIdx.x == 0) pass_turn(last);
      if (next.head < heads.last) copy_step(next, stage ^ 1);
      commit_copies();
      const std::uint32_t q = q_shared + stage * kRowBytes;
      const std::uint32_t dout = dout_shared + stage * kRowBytes;
      {
        float s[2][kScoreTiles][4], dp[2][kScoreTiles][4];
        find_scores(s, q, k_shared);
        find_scores(dp, dout, v_shared);
        differentiate(s, dp, step, stage);
        store_scores(p_shared, s);
        store_scores(ds_shared, dp);
      }
      bool good = true;
      if (threadIdx.x == 0) {
        good = await_turn(g, counter(step, step.part), g.places[step.tile].turn);
      }
      if (__syncthreads_and(good) == 0) return;  // P and dS are there, and dQ is ours
      add_to_keys(dv, p_shared, dout);
      add_dq(step);
      add_to_keys(dk, ds_shared, q);
      last = step;
      added = true;
      step = next;
    }
    __syncthreads();
    if (added && threadIdx.x == 0) pass_turn(last);
    store_keys(p.dk, dk, static_cast<float>(g.softmax_scale));
    store_keys(p.dv, dv, 1.0F);
  }
};

template <typename T, int kDim>
__global__ void __launch_bounds__(256, 1)
    flash2_backward_kernel(const __grid_constant__ Geometry g,
                           const __grid_constant__ BackwardParams p, int* turns) {
  extern __shared__ __align__(1024) char shared[];
  Flash2Backward<T, kDim> block(g, p, turns, shared);
  block.run();
}

template <typename T, int kDim>
void launch_flash2_backward(const BackwardParams& params, const LaunchContext& context) {
  constexpr int kBytes = Flash2Backward<T, kDim>::kSharedBytes;
  static_assert(kBytes <= 163 * 1024);
  const Geometry g = geometry_of(params.geometry, context);
  void (*const kernel)(Geometry, BackwardParams, int*) = &flash2_backward_kernel<T, kDim>;
  allow_shared_memory(reinterpret_cast<const void*>(kernel), kBytes);
  const dim3 grid(static_cast<unsigned>(g.key_tile_count), static_cast<unsigned>(g.kv_heads),
                  static_cast<unsigned>(g.batch));
  kernel<<<grid, 256, kBytes, static_cast<cudaStream_t>(context.stream)>>>(
      g, params, reinterpret_cast<int*>(context.workspace.data()));
  check_launch("flash2 backward");
}

}  // namespace annulus::attn::cuda
