// FlashAttention-2 forward (Dao 2023) on tensor cores, sm_80 and up. One block of four warps holds
// a query tile of up to 128 rows and streams its tiles' keys, 64 (head_dim 128) or 128 (64) at a
// time. A warp owns 32 rows: their scores, probabilities and output stay in its registers; P
// becomes the left operand of P V by renaming, for the layout of a product is that of an operand.
//
//   shared memory   Q [128][dim], K [keys][dim], V [keys][dim], swizzled (device/mma.cuh): 64 KB
//   and
//                   48 KB, so that two blocks share an SM
//   pipeline        V of this step is copied under Q K^T, K of the next one under softmax and P V
//   limits          f16, bf16; head_dim = head_dim_v = 64 or 128; 16-byte aligned rows; tiles of at
//                   most 128 rows; softmax_scale > 0
//
// Blocks take query tiles from the last to the first: under a causal mask the long ones.
#pragma once

#include "attention/kernels/cuda/device/blocks.cuh"
#include "attention/kernels/cuda/device/numbers.cuh"
#include "attention/kernels/cuda/launch.h"

namespace annulus::attn::cuda {

template <typename T, int kDim, bool kCapped>
struct Flash2Forward {
  static constexpr int kRows = 128;
  static constexpr int kKeys = 64;
  static constexpr int kThreads = 128;
  static constexpr int kScoreTiles = kKeys / 8;  ///< 16 x 8 products of a warp's 16 rows
  static constexpr int kDimTiles = kDim / 8;
  static constexpr int kSharedBytes = (kRows + 2 * kKeys) * kDim * 2;

  /// Up to kKeys keys of one tile.
  struct Step {
    int tile = 0;
    int offset = 0;  ///< within the tile
    int keys = 0;
    bool masked = false;
    std::int64_t token = 0;
  };

  const Geometry& g;
  const ForwardParams& p;
  int head, batch, lane, warp_row;
  int row, rows, begin, end;  ///< of the query tile: first row, count; its tiles
  int kv_head;
  std::uint32_t q_shared, k_shared, v_shared;
  float score_scale;  ///< what takes a score (softcap applied) to base-2 exponents

  float o[2][kDimTiles][4];
  float max[2][2], sum[2][2];  ///< of rows 16 m + g + 8 h; sums are this thread's columns only

  __device__ int row_in_tile(int m, int h) const { return warp_row + 16 * m + 8 * h + (lane >> 2); }

  __device__ Flash2Forward(const Geometry& geometry, const ForwardParams& params, void* shared)
      : g(geometry), p(params) {
    head = static_cast<int>(blockIdx.y);
    batch = static_cast<int>(blockIdx.z);
    lane = static_cast<int>(threadIdx.x & 31U);
    warp_row = static_cast<int>(threadIdx.x / 32U) * 32;
    const int query_tile = g.row_tile_count - 1 - static_cast<int>(blockIdx.x);
    begin = g.row_tiles[query_tile];
    end = g.row_tiles[query_tile + 1];
    row = g.tiles[begin].row;
    kv_head = static_cast<int>(kv_head_of(g, head));
    q_shared = shared_address(shared);
    k_shared = q_shared + kRows * kDim * 2;
    v_shared = k_shared + kKeys * kDim * 2;
    score_scale = kCapped ? kLog2E : static_cast<float>(g.softmax_scale) * kLog2E;
  }

  /// False where a flag's wait was aborted.
  __device__ bool set_step(Step& step, int tile_index, int offset) const {
    step.tile = tile_index;
    step.offset = offset;
    if (tile_index == end) return true;
    const Tile tile = g.tiles[tile_index];
    const KeySegment& segment = g.keys[tile.segment];
    if (offset == 0 && !await_segment(g, segment)) return false;
    step.keys = min(kKeys, tile.keys - offset);
    step.masked = !tile.full || step.keys < kKeys || tile.rows < rows;
    step.token = segment.token + tile.key + offset;
    return true;
  }

  __device__ bool advance(Step& step) const {
    const bool within = step.offset + kKeys < g.tiles[step.tile].keys;
    return set_step(step, within ? step.tile : step.tile + 1, within ? step.offset + kKeys : 0);
  }

  __device__ void copy_keys(std::uint32_t to, const Input& operand, const Step& step) const {
    const T* from =
        static_cast<const T*>(operand.data) + index_of(operand, batch, step.token, kv_head);
    copy_rows<T, kDim, kKeys, kThreads>(to, step.keys,
                                        [&](int i) { return from + i * operand.token_stride; });
  }

  __device__ void copy_queries() const {
    const T* q = static_cast<const T*>(p.q.data) + index_of(p.q, batch, 0, head);
    copy_rows<T, kDim, kRows, kThreads>(
        q_shared, rows, [&](int i) { return q + token_of_row(g, row + i) * p.q.token_stride; });
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

  /// Column 8 n + 2 t + e of the step is key offset + that of the tile.
  __device__ void mask(float (&s)[2][kScoreTiles][4], const Step& step) const {
    const Tile tile = g.tiles[step.tile];
    const KeySegment& segment = g.keys[tile.segment];
    const std::int64_t first = segment.position + (tile.key + step.offset) * segment.stride;
    VisibleKeys mine = all_keys(0);  // of row warp_row + lane
    if (warp_row + lane < tile.rows) {
      mine = tile.full ? all_keys(step.keys)
                       : visible_keys(g, row + warp_row + lane, first, segment.stride, step.keys);
    }
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const VisibleKeys visible = from_lane(mine, 16 * m + 8 * h + (lane >> 2));
#pragma unroll
        for (int n = 0; n < kScoreTiles; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int key = 8 * n + 2 * (lane & 3) + e;
            if (!visible.sees(key)) s[m][n][2 * h + e] = -kInfinity;
          }
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
          load_b_transposed<kDim>(b, v_shared, dim, key, lane);
        });
  }

  __device__ void finish_rows() {
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
        const std::int64_t token = token_of_row(g, row + row_in_tile(m, h));
        *f32_row(p.lse, batch, token, head) =
            unseen ? -kInfinity : max[m][h] * (score_scale * kLn2) + logf(total);
      }
    }
  }

  __device__ void store_state() const {
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (row_in_tile(m, h) >= rows) continue;
        const std::int64_t token = token_of_row(g, row + row_in_tile(m, h));
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
  __device__ void store_out(char* shared) const {
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int n = 0; n < kDimTiles; ++n) {
          const std::uint32_t at = swizzled<kDim>(0, row_in_tile(m, h), n) + 4 * (lane & 3);
          *reinterpret_cast<std::uint32_t*>(shared + at) =
              pack(o[m][n][2 * h], o[m][n][2 * h + 1], T());
        }
      }
    }
    __syncwarp();
    constexpr int kChunks = kDim / 8;
    T* out = static_cast<T*>(p.out.data) + index_of(p.out, batch, 0, head);
    for (int i = lane / kChunks; i < 32; i += 32 / kChunks) {
      if (warp_row + i >= rows) continue;
      const std::int64_t token = token_of_row(g, row + warp_row + i);
      const int chunk = lane % kChunks;
      const std::uint32_t at = swizzled<kDim>(0, warp_row + i, chunk);
      *reinterpret_cast<uint4*>(out + token * p.out.token_stride + chunk * 8) =
          *reinterpret_cast<const uint4*>(shared + at);
    }
  }

  __device__ void run(char* shared) {
    const TileTotals totals = totals_of(g.tiles, begin, end);
    rows = totals.rows;
    Step step;
    if (!set_step(step, begin, 0)) return;
    copy_queries();
    copy_keys(k_shared, p.k, step);
    commit_copies();
    if (threadIdx.x == 0) count_flops(g, 2 * totals.pairs * (kDim + kDim));
    begin_rows();
    while (step.tile < end) {
      wait_copies<0>();
      __syncthreads();  // K is there; nobody reads the last V any more
      copy_keys(v_shared, p.v, step);
      commit_copies();
      float s[2][kScoreTiles][4];
      clear(s);
      multiply<T, 2, kScoreTiles, kDim>(
          s,
          [&](std::uint32_t(&a)[4], int m, int dim) {
            load_a<kDim>(a, q_shared, warp_row + m, dim, lane);
          },
          [&](std::uint32_t(&b)[4], int key, int dim) {
            load_b<kDim>(b, k_shared, key, dim, lane);
          });
      Step next = step;
      if (!advance(next)) return;
      wait_copies<0>();
      __syncthreads();  // V is there; nobody reads this K any more
      if (next.tile < end) copy_keys(k_shared, p.k, next);
      commit_copies();
      if constexpr (kCapped) cap(s);
      if (step.masked) mask(s, step);
      softmax(s);
      add_values(s);
      step = next;
    }
    finish_rows();
    if (p.finish) {
      store_out(shared);
    } else {
      store_state();
    }
  }
};

template <typename T, int kDim, bool kCapped>
__global__ void __launch_bounds__(128, 2)
    flash2_forward_kernel(const __grid_constant__ Geometry g,
                          const __grid_constant__ ForwardParams p) {
  extern __shared__ __align__(1024) char shared[];
  Flash2Forward<T, kDim, kCapped> block(g, p, shared);
  block.run(shared);
}

template <typename T, int kDim>
void launch_flash2_forward(const ForwardParams& params, const LaunchContext& context) {
  constexpr int kBytes = Flash2Forward<T, kDim, false>::kSharedBytes;
  const Geometry g = geometry_of(params.geometry, context);
  void (*const kernel)(Geometry, ForwardParams) = params.geometry.softcap == 0.0
                                                      ? &flash2_forward_kernel<T, kDim, false>
                                                      : &flash2_forward_kernel<T, kDim, true>;
  allow_shared_memory(reinterpret_cast<const void*>(kernel), kBytes);
  const dim3 grid(static_cast<unsigned>(g.row_tile_count), static_cast<unsigned>(g.heads),
                  static_cast<unsigned>(g.batch));
  kernel<<<grid, 128, kBytes, static_cast<cudaStream_t>(context.stream)>>>(g, params);
  check_launch("flash2 forward");
}

}  // namespace annulus::attn::cuda
