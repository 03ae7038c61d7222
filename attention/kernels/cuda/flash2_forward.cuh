// FlashAttention-2 forward (Dao 2023) on tensor cores, sm_80 and up. One block of four warps holds
// a query tile of up to 128 rows and streams its tiles' keys, 64 (head_dim 128) or 128 (64) at a
// time. A warp owns 32 rows: their scores, probabilities and output stay in its registers; P
// becomes the left operand of P V by renaming, for the layout of a product is that of an operand.
//
//   shared memory   Q [128][dim], K [keys][dim], V [keys][dim], swizzled (device/mma.cuh): 64 KB
//                   or 48 KB, so that two blocks share an SM
//   pipeline        V of this step is copied under Q K^T, K of the next one under softmax and P V;
//                   one thread looks up the steps, two ahead
//   limits          f16, bf16; head_dim = head_dim_v = 64 or 128; 16-byte aligned rows; tiles of at
//                   most 128 rows; softmax_scale > 0
//
// Blocks take query tiles from the last to the first: under a causal mask the long ones.
#pragma once

#include "attention/kernels/cuda/device/blocks.cuh"
#include "attention/kernels/cuda/device/numbers.cuh"
#include "attention/kernels/cuda/device/steps.cuh"
#include "attention/kernels/cuda/launch.h"

namespace annulus::attn::cuda {

/// Shared memory of a block.
template <typename T, int kDim, int kKeyCount>
struct Flash2ForwardShared {
  static constexpr int kRows = 128;
  static constexpr int kKeys = kKeyCount;
  T q[kRows][kDim], k[kKeys][kDim], v[kKeys][kDim];
  KeyStep steps[4];
  KeyStepWalker<kKeys> walker;
  int aborted;
};

template <typename T, int kDim, bool kCapped>
struct Flash2Forward {
  /// Twice the keys mean half the rescaling and half the barriers, where registers allow it.
  using Shared = Flash2ForwardShared<T, kDim, kDim == 64 && !kCapped ? 128 : 64>;
  static constexpr int kRows = Shared::kRows;
  static constexpr int kKeys = Shared::kKeys;
  static constexpr int kThreads = 128;
  static constexpr int kScoreTiles = kKeys / 8;  ///< 16 x 8 products of a warp's 16 rows
  static constexpr int kDimTiles = kDim / 8;

  const Geometry& g;
  const ForwardParams& p;
  Shared& shared;
  int head, batch, lane, warp_row;
  int row, rows, begin, end;  ///< of the query tile: first row, count; its tiles
  int kv_head;
  float score_scale;  ///< what takes a score (softcap applied) to base-2 exponents

  float o[2][kDimTiles][4];
  float max[2][2], sum[2][2];  ///< of rows 16 m + g + 8 h; sums are this thread's columns only

  __device__ int row_in_tile(int m, int h) const { return warp_row + 16 * m + 8 * h + (lane >> 2); }

  __device__ Flash2Forward(const Geometry& geometry, const ForwardParams& params, Shared& memory)
      : g(geometry), p(params), shared(memory) {
    head = static_cast<int>(blockIdx.y);
    batch = static_cast<int>(blockIdx.z);
    lane = static_cast<int>(threadIdx.x & 31U);
    warp_row = static_cast<int>(threadIdx.x / 32U) * 32;
    const int query_tile = g.row_tile_count - 1 - static_cast<int>(blockIdx.x);
    begin = g.row_tiles[query_tile];
    end = g.row_tiles[query_tile + 1];
    row = g.tiles[begin].row;
    kv_head = static_cast<int>(kv_head_of(g, head));
    score_scale = kCapped ? kLog2E : static_cast<float>(g.softmax_scale) * kLog2E;
  }

  __device__ void copy_keys(void* to, const Input& operand, const KeyStep& step) const {
    const T* from =
        static_cast<const T*>(operand.data) + index_of(operand, batch, step.token, kv_head);
    copy_rows<T, kDim, kKeys, kThreads>(shared_address(to), from, operand.token_stride, step.keys);
  }

  __device__ void copy_queries() const {
    const RowTokens tokens(g, row, rows);
    const T* q = static_cast<const T*>(p.q.data) + index_of(p.q, batch, 0, head);
    copy_rows_from<T, kDim, kRows, kThreads>(shared_address(shared.q), rows, [&](int i) {
      return q + tokens.of(g, row + i) * p.q.token_stride;
    });
  }

  /// Rows continue from (state, lse), or start with nothing.
  __device__ void begin_rows() {
    clear(o);
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        max[m][h] = -kInfinity;
        sum[m][h] = 0.0F;
        if (!p.resume || row_in_tile(m, h) >= rows) continue;
        const std::int64_t token = token_of_row(g, row + row_in_tile(m, h));
        const float lse = *f32_row(p.lse, batch, token, head);
        if (lse == -kInfinity) continue;
        max[m][h] = lse / (score_scale * kLn2);
        sum[m][h] = (lane & 3) == 0 ? 1.0F : 0.0F;
        const float* state = f32_row(p.state, batch, token, head) + 2 * (lane & 3);
#pragma unroll
        for (int n = 0; n < kDimTiles; ++n) {
          const float2 pair = *reinterpret_cast<const float2*>(state + 8 * n);
          o[m][n][2 * h] = pair.x;
          o[m][n][2 * h + 1] = pair.y;
        }
      }
    }
  }

  __device__ void cap(float (&s)[2][kScoreTiles][4]) const {
    const auto softcap = static_cast<float>(g.softcap);
    const float factor = static_cast<float>(g.softmax_scale) / softcap;
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int n = 0; n < kScoreTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) s[m][n][i] = softcap * tanh_fast(s[m][n][i] * factor);
      }
    }
  }

  /// Lane l: which of 32 keys of the step, `key` and up, the warp's row l sees.
  __device__ std::uint32_t visible_bits(const Tile& tile, const KeyStep& step, int key) const {
    if (warp_row + lane >= tile.rows) return 0;
    if (tile.full) return low_bits(step.keys - key);
    const KeySegment& segment = g.keys[tile.segment];
    const std::int64_t first = segment.position + (tile.key + step.offset) * segment.stride;
    return visible_keys(g, row + warp_row + lane, first, segment.stride, step.keys).bits(key);
  }

  /// Column 8 n + 2 t + e of the step is key offset + that of the tile.
  __device__ void mask(float (&s)[2][kScoreTiles][4], const KeyStep& step) const {
    const Tile tile = g.tiles[step.tile];
#pragma unroll
    for (int key = 0; key < kKeys; key += 32) {
      const std::uint32_t bits = visible_bits(tile, step, key);
#pragma unroll
      for (int r = 0; r < 4; ++r) {  // row 8 r + lane / 4 of the warp
        const std::uint32_t seen =
            __shfl_sync(0xffffffffU, bits, 8 * r + (lane >> 2)) >> (2 * (lane & 3));
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const int column = 8 * (i / 2) + i % 2;
          float& x = s[r / 2][key / 8 + i / 2][2 * (r % 2) + i % 2];
          if (((seen >> column) & 1U) == 0) x = -kInfinity;
        }
      }
    }
  }

  /// Scores to probabilities of a new maximum; what is there is scaled to it.
  __device__ void softmax(float (&s)[2][kScoreTiles][4]) {
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float top = max[m][h];
#pragma unroll
        for (int n = 0; n < kScoreTiles; ++n) {
          top = fmaxf(top, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
        }
        top = fmaxf(top, __shfl_xor_sync(0xffffffffU, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffU, top, 2));
        const float shift = top == -kInfinity ? 0.0F : top * score_scale;
        const float keep = exp2_fast(fmaf(max[m][h], score_scale, -shift));
        max[m][h] = top;
        float part = sum[m][h] * keep;
#pragma unroll
        for (int n = 0; n < kScoreTiles; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            float& x = s[m][n][2 * h + e];
            x = exp2_fast(fmaf(x, score_scale, -shift));
            part += x;
          }
        }
        sum[m][h] = part;
#pragma unroll
        for (int n = 0; n < kDimTiles; ++n) {
          o[m][n][2 * h] *= keep;
          o[m][n][2 * h + 1] *= keep;
        }
      }
    }
  }

  __device__ void add_values(const float (&s)[2][kScoreTiles][4]) {
    const std::uint32_t v_place = down_place<kDim>(shared_address(shared.v), lane);
    multiply<T, 2, kDimTiles, kKeys>(
        o,
        [&](std::uint32_t(&a)[4], int m, int key) {
          const float(&left)[4] = s[m / 16][key / 8];
          const float(&right)[4] = s[m / 16][key / 8 + 1];
          a[0] = pack(left[0], left[1], T());
          a[1] = pack(left[2], left[3], T());
          a[2] = pack(right[0], right[1], T());
          a[3] = pack(right[2], right[3], T());
        },
        [&](std::uint32_t(&b)[4], int dim, int key) {
          load_blocks_transposed(b, piece<kDim>(v_place, key, dim));
        });
  }

  __device__ void finish_rows() {
    const RowTokens tokens(g, row, rows);
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float total = sum[m][h];
        total += __shfl_xor_sync(0xffffffffU, total, 1);
        total += __shfl_xor_sync(0xffffffffU, total, 2);
        const bool unseen = total == 0.0F;
        const float factor = 1.0F / total;
#pragma unroll
        for (int n = 0; n < kDimTiles; ++n) {
          // 0 times what is not finite is no 0.
          o[m][n][2 * h] = unseen ? 0.0F : o[m][n][2 * h] * factor;
          o[m][n][2 * h + 1] = unseen ? 0.0F : o[m][n][2 * h + 1] * factor;
        }
        if ((lane & 3) != 0 || row_in_tile(m, h) >= rows) continue;
        const std::int64_t token = tokens.of(g, row + row_in_tile(m, h));
        *f32_row(p.lse, batch, token, head) =
            unseen ? -kInfinity : max[m][h] * (score_scale * kLn2) + logf(total);
      }
    }
  }

  __device__ void store_state() const {
    const RowTokens tokens(g, row, rows);
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (row_in_tile(m, h) >= rows) continue;
        const std::int64_t token = tokens.of(g, row + row_in_tile(m, h));
        float* state = f32_row(p.state, batch, token, head) + 2 * (lane & 3);
#pragma unroll
        for (int n = 0; n < kDimTiles; ++n) {
          *reinterpret_cast<float2*>(state + 8 * n) =
              make_float2(o[m][n][2 * h], o[m][n][2 * h + 1]);
        }
      }
    }
  }

  /// Through the warp's own rows of Q in shared memory, so that rows leave in 16-byte pieces.
  __device__ void store_out() const {
    char* bytes = reinterpret_cast<char*>(shared.q);
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int n = 0; n < kDimTiles; ++n) {
          const std::uint32_t at = swizzled<kDim>(0, row_in_tile(m, h), n) + 4 * (lane & 3);
          *reinterpret_cast<std::uint32_t*>(bytes + at) =
              pack(o[m][n][2 * h], o[m][n][2 * h + 1], T());
        }
      }
    }
    __syncwarp();
    constexpr int kChunks = kDim / 8;
    const RowTokens tokens(g, row, rows);
    T* out = static_cast<T*>(p.out.data) + index_of(p.out, batch, 0, head);
    for (int i = lane / kChunks; i < 32; i += 32 / kChunks) {
      if (warp_row + i >= rows) continue;
      const std::int64_t token = tokens.of(g, row + warp_row + i);
      const int chunk = lane % kChunks;
      const std::uint32_t at = swizzled<kDim>(0, warp_row + i, chunk);
      *reinterpret_cast<uint4*>(out + token * p.out.token_stride + chunk * 8) =
          *reinterpret_cast<const uint4*>(bytes + at);
    }
  }

  __device__ void find_scores(float (&s)[2][kScoreTiles][4]) const {
    clear(s);
    const std::uint32_t q_place = down_place<kDim>(shared_address(shared.q[warp_row]), lane);
    const std::uint32_t k_place = across_place<kDim>(shared_address(shared.k), lane);
    multiply<T, 2, kScoreTiles, kDim>(
        s,
        [&](std::uint32_t(&a)[4], int m, int dim) { load_blocks(a, piece<kDim>(q_place, m, dim)); },
        [&](std::uint32_t(&b)[4], int n, int dim) {
          load_blocks(b, piece<kDim>(k_place, n, dim));
        });
  }

  /// One thread: looks up step i.
  __device__ void plan(int i) const {
    if (!shared.walker.plan(g, end, rows, shared.steps[i & 3])) shared.aborted = 1;
  }

  /// False where a flag's wait was aborted.
  __device__ bool stream_keys() {
    for (int i = 0;; ++i) {
      wait_copies<0>();
      __syncthreads();  // K is there; nobody reads the last V any more
      const KeyStep& step = shared.steps[i & 3];
      if (shared.aborted != 0) return false;
      if (step.keys == 0) return true;
      copy_keys(shared.v, values_of(g, p, step.source), step);
      commit_copies();
      float s[2][kScoreTiles][4];
      find_scores(s);
      wait_copies<0>();
      __syncthreads();  // V is there; nobody reads this K any more
      const KeyStep& next = shared.steps[(i + 1) & 3];
      if (next.keys > 0) copy_keys(shared.k, keys_of(g, p, next.source), next);
      commit_copies();
      if (threadIdx.x == 0) plan(i + 2);
      if constexpr (kCapped) cap(s);
      if (step.masked) mask(s, step);
      softmax(s);
      add_values(s);
    }
  }

  __device__ void run() {
    const TileTotals totals = totals_of(g.tiles, begin, end);
    rows = totals.rows;
    if (threadIdx.x == 0) {
      count_flops(g, 2 * totals.pairs * (kDim + kDim));
      shared.aborted = 0;
      shared.walker = {begin, 0, static_cast<int>(kv_head_of(g, head)), -1, 0};
      plan(0);
      plan(1);
    }
    copy_queries();
    __syncthreads();  // the first steps are planned
    copy_keys(shared.k, keys_of(g, p, shared.steps[0].source), shared.steps[0]);
    commit_copies();
    begin_rows();
    if (!stream_keys()) return;
    finish_rows();
    if (p.finish) {
      store_out();
    } else {
      store_state();
    }
  }
};

template <typename T, int kDim, bool kCapped>
__global__ void __launch_bounds__(128, 2)
    flash2_forward_kernel(const __grid_constant__ Geometry g,
                          const __grid_constant__ ForwardParams p) {
  extern __shared__ __align__(1024) char memory[];
  using Block = Flash2Forward<T, kDim, kCapped>;
  Block block(g, p, *reinterpret_cast<typename Block::Shared*>(memory));
  block.run();
}

template <typename T, int kDim>
KernelEntries flash2_forward_entries() {
  return entries_of(&flash2_forward_kernel<T, kDim, false>, &flash2_forward_kernel<T, kDim, true>);
}

template <typename T, int kDim, bool kCapped>
void launch_flash2_forward(const ForwardParams& params, const LaunchContext& context) {
  constexpr int kBytes = sizeof(typename Flash2Forward<T, kDim, kCapped>::Shared);
  const Geometry g = geometry_of(params.geometry, context);
  void (*const kernel)(Geometry, ForwardParams) = &flash2_forward_kernel<T, kDim, kCapped>;
  allow_shared_memory(reinterpret_cast<const void*>(kernel), kBytes);
  const dim3 grid(static_cast<unsigned>(g.row_tile_count), static_cast<unsigned>(g.heads),
                  static_cast<unsigned>(g.batch));
  kernel<<<grid, 128, kBytes, static_cast<cudaStream_t>(context.stream)>>>(g, params);
  check_launch("flash2 forward");
}

template <typename T, int kDim>
void launch_flash2_forward(const ForwardParams& params, const LaunchContext& context) {
  if (params.geometry.softcap == 0.0) {
    launch_flash2_forward<T, kDim, false>(params, context);
  } else {
    launch_flash2_forward<T, kDim, true>(params, context);
  }
}

}  // namespace annulus::attn::cuda
