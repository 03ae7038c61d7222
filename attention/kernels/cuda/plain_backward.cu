// Attention backward without tensor cores: any element type, head dims up to 512, any alignment. A
// block serves a key tile of one key/value head and streams the query tiles that see it, 16 rows at
// a time, of every query head of the group: P and dS once into shared memory (16 KB), then dV, dK
// and dQ are added to in memory. f32 arithmetic. Nobody else adds to the block's keys; to dQ it
// adds in any order, or (kOrdered) when the key tile's turn comes (see flash2_backward.cuh). Where
// dK and dV are rounded a kernel of their own finds them. Workspace: the turns.
#include "attention/kernels/cuda/device/blocks.cuh"
#include "attention/kernels/cuda/device/numbers.cuh"
#include "attention/kernels/cuda/device/pairs.cuh"
#include "attention/kernels/cuda/launch.h"

namespace annulus::attn::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kRows = 16;
constexpr int kKeys = 128;
constexpr int kColumns = 128;  ///< that are summed at once where dK and dV are rounded
constexpr int kSumBytes = kKeys * kColumns * static_cast<int>(sizeof(float));

struct Part {
  int batch, head;
  std::int64_t kv;
  Tile tile;
  int first, rows;         ///< within the tile
  std::int32_t source;     ///< of K and V
  std::int64_t key_token;  ///< of the tile's first key
};

__device__ void find_scores(const Geometry& g, const BackwardParams& p, const Part& part,
                            float (*probability)[kKeys], float (*ds)[kKeys]) {
  const int lane = static_cast<int>(threadIdx.x & 31U);
  for (int r = static_cast<int>(threadIdx.x / 32U); r < kRows; r += kThreads / 32) {
    const std::int64_t row = part.tile.row + part.first + r;
    const VisibleKeys visible = r < part.rows ? visible_in_tile(g, part.tile, row) : all_keys(0);
    const std::int64_t token = r < part.rows ? token_of_row(g, row) : 0;
    for (int j = lane; j < kKeys; j += 32) {
      PairGradient<float> pair{0.0F, 0.0F};
      if (visible.sees(j)) {
        pair =
            gradient_of<float>(g, p, part.batch, part.head, token, part.source, part.key_token + j);
      }
      probability[r][j] = pair.p;
      ds[r][j] = pair.ds;
    }
  }
}

/// Columns [first, first + count) of dK or dV, and what they are made of: rows of q or dout.
struct Columns {
  const Output& target;
  const Input& source;
  float factor;
  std::int64_t first, count;
};

/// add(key, column, sum over rows of scores[row][key] * source[row]) for all keys and columns.
template <typename Add>
__device__ void add_to_keys(const Geometry& g, const Part& part, const Columns& columns,
                            const float (*scores)[kKeys], Add&& add) {
  const Input& source = columns.source;
  const std::int64_t base = index_of(source, part.batch, 0, part.head) + columns.first;
  for (std::int64_t i = threadIdx.x; i < part.tile.keys * columns.count; i += kThreads) {
    const auto key = static_cast<int>(i / columns.count);
    const std::int64_t d = i % columns.count;
    float sum = 0.0F;
    for (int r = 0; r < part.rows; ++r) {
      const float score = scores[r][key];
      if (score == 0.0F) continue;
      const std::int64_t token = token_of_row(g, part.tile.row + part.first + r);
      sum += score *
             load_element<float>(source.data, source.dtype, base + token * source.token_stride + d);
    }
    add(key, d, columns.factor * sum);
  }
}

/// The same to memory.
__device__ void add_in_rows(const Geometry& g, const Part& part, const Columns& columns,
                            const float (*scores)[kKeys]) {
  add_to_keys(g, part, columns, scores, [&](int key, std::int64_t d, float sum) {
    f32_row(columns.target, part.batch, part.key_token + key, part.kv)[d] += sum;
  });
}

template <bool kOrdered>
__device__ void add_to_rows(const Geometry& g, const BackwardParams& p, const Part& part,
                            const float (*ds)[kKeys]) {
  const Input k = keys_of(g, p, part.source);
  for (std::int64_t i = threadIdx.x; i < part.rows * g.head_dim; i += kThreads) {
    const auto r = static_cast<int>(i / g.head_dim);
    const std::int64_t d = i % g.head_dim;
    float sum = 0.0F;
    for (int key = 0; key < part.tile.keys; ++key) {
      const float score = ds[r][key];
      if (score == 0.0F) continue;
      const std::int64_t index = index_of(k, part.batch, part.key_token + key, part.kv) + d;
      sum += score * load_element<float>(k.data, k.dtype, index);
    }
    const std::int64_t token = token_of_row(g, part.tile.row + part.first + r);
    float* to = f32_row(p.dq, part.batch, token, part.head) + d;
    sum *= static_cast<float>(g.softmax_scale);
    if constexpr (kOrdered) {
      // Other blocks have added before: what an SM's own cache holds may be old.
      __stcg(to, __ldcg(to) + sum);
    } else {
      atomicAdd(to, sum);
    }
  }
}

/// Two blocks an SM where dQ is free: left to itself the compiler takes three, and spills.
/// kRounded: dQ alone, since round_keys_kernel has dK and dV.
template <bool kOrdered, bool kRounded>
__global__ void __launch_bounds__(kThreads, kOrdered ? 1 : 2)
    plain_backward_kernel(const __grid_constant__ Geometry g,
                          const __grid_constant__ BackwardParams p, int* turns) {
  __shared__ float probability[kRows][kKeys];
  __shared__ float ds[kRows][kKeys];
  const int key_tile = g.key_tile_count - 1 - static_cast<int>(blockIdx.x);
  const int begin = g.key_tiles[key_tile];
  const int end = g.key_tiles[key_tile + 1];
  Part part{};
  part.batch = static_cast<int>(blockIdx.z);
  part.kv = blockIdx.y + g.first_kv_head;
  const HeadRange heads = heads_of(g, part.kv);
  const TileTotals totals = totals_of(g.tiles_by_key, begin, end);
  if (threadIdx.x == 0) {
    count_flops(
        g, 2 * totals.pairs * (heads.last - heads.first) * (3 * g.head_dim + 2 * g.head_dim_v));
  }
  const KeySegment segment = g.keys[g.tiles_by_key[begin].segment];
  if (!await_segment(g, segment)) return;
  part.source = segment.source;
  for (part.head = heads.first; part.head < heads.last; ++part.head) {
    for (int i = begin; i < end; ++i) {
      part.tile = g.tiles_by_key[i];
      part.key_token = segment.token + part.tile.key;
      if (!await_rows_of_block(g, part.head, part.tile.row, part.tile.rows)) return;
      TilePlace place{};
      int* counter = nullptr;
      if constexpr (kOrdered) {
        place = g.places[i];
        counter = turns + turn_index(g, part.batch, part.head, place.row_tile, 0);
        bool good = true;
        if (threadIdx.x == 0) good = await_turn(g, counter, place.turn);
        if (__syncthreads_and(good) == 0) return;
      }
      for (part.first = 0; part.first < part.tile.rows; part.first += kRows) {
        part.rows = min(kRows, part.tile.rows - part.first);
        find_scores(g, p, part, probability, ds);
        __syncthreads();
        if constexpr (!kRounded) {
          add_in_rows(g, part, {p.dv, p.dout, 1.0F, 0, g.head_dim_v}, probability);
          add_in_rows(g, part, {p.dk, p.q, static_cast<float>(g.softmax_scale), 0, g.head_dim}, ds);
        }
        add_to_rows<kOrdered>(g, p, part, ds);
        __syncthreads();
      }
      if (kOrdered && threadIdx.x == 0) {
        __threadfence();
        store_release(counter, place.turn + 1);
      }
    }
  }
}

/// Columns of dK (`of_keys`) or dV of the block's keys, summed in `sums` and rounded.
__device__ void round_columns(const Geometry& g, const BackwardParams& p, Part part, int begin,
                              int end, const Columns& columns, bool of_keys,
                              float (*probability)[kKeys], float (*ds)[kKeys],
                              float (*sums)[kColumns]) {
  const KeySegment& segment = g.keys[g.tiles_by_key[begin].segment];
  const std::int64_t first_key = segment.token + g.tiles_by_key[begin].key;
  const int keys = totals_of(g.tiles_by_key, begin, end).keys;
  for (int i = static_cast<int>(threadIdx.x); i < kKeys * kColumns; i += kThreads) {
    sums[i / kColumns][i % kColumns] = 0.0F;
  }
  const HeadRange heads = heads_of(g, part.kv);
  part.source = segment.source;
  for (part.head = heads.first; part.head < heads.last; ++part.head) {
    for (int i = begin; i < end; ++i) {
      part.tile = g.tiles_by_key[i];
      part.key_token = segment.token + part.tile.key;
      for (part.first = 0; part.first < part.tile.rows; part.first += kRows) {
        part.rows = min(kRows, part.tile.rows - part.first);
        __syncthreads();
        find_scores(g, p, part, probability, ds);
        __syncthreads();
        add_to_keys(g, part, columns, of_keys ? ds : probability,
                    [&](int key, std::int64_t d, float sum) { sums[key][d] += sum; });
      }
    }
  }
  __syncthreads();
  for (std::int64_t i = threadIdx.x; i < keys * columns.count; i += kThreads) {
    const std::int64_t key = i / columns.count;
    const std::int64_t d = i % columns.count;
    store_element(
        columns.target.data, columns.target.dtype,
        index_of(columns.target, part.batch, first_key + key, part.kv) + columns.first + d,
        sums[key][d]);
  }
  __syncthreads();
}

/// dK and dV that are rounded, of the same blocks as above: 128 columns at a time, whose sums lie
/// in shared memory and for which P and dS are found anew. Rows are there: those above have waited.
__global__ void __launch_bounds__(kThreads, 2)
    round_keys_kernel(const __grid_constant__ Geometry g,
                      const __grid_constant__ BackwardParams p) {
  extern __shared__ __align__(16) float sums[][kColumns];
  __shared__ float probability[kRows][kKeys];
  __shared__ float ds[kRows][kKeys];
  const int begin = g.key_tiles[blockIdx.x];
  const int end = g.key_tiles[blockIdx.x + 1];
  Part part{};
  part.batch = static_cast<int>(blockIdx.z);
  part.kv = blockIdx.y + g.first_kv_head;
  if (!await_segment(g, g.keys[g.tiles_by_key[begin].segment])) return;
  for (const bool of_keys : {false, true}) {
    const std::int64_t dim = of_keys ? g.head_dim : g.head_dim_v;
    const float factor = of_keys ? static_cast<float>(g.softmax_scale) : 1.0F;
    for (std::int64_t first = 0; first < dim; first += kColumns) {
      const std::int64_t count = dim - first < kColumns ? dim - first : kColumns;
      round_columns(g, p, part, begin, end,
                    {of_keys ? p.dk : p.dv, of_keys ? p.q : p.dout, factor, first, count}, of_keys,
                    probability, ds, sums);
    }
  }
}

}  // namespace

KernelEntries plain_backward_entries() {
  return clear_entries() + entries_of(&plain_backward_kernel<false, false>,
                                      &plain_backward_kernel<false, true>,
                                      &plain_backward_kernel<true, false>,
                                      &plain_backward_kernel<true, true>, &round_keys_kernel);
}

void plain_backward(const BackwardParams& params, const LaunchContext& context) {
  const std::int64_t turns = turn_count(params.geometry);
  check_arguments(params.geometry, context, true, turns * static_cast<std::int64_t>(sizeof(int)));
  const bool rounded = rounds_dkv(params);
  clear_gradients(params, context, context.deterministic ? turns : 0,
                  rounded ? KeyGradients::kernel_assigns : KeyGradients::kernel_adds);
  const Geometry g = geometry_of(params.geometry, context);
  if (g.key_tile_count == 0 || g.heads == 0 || g.batch == 0) return;
  const dim3 grid(static_cast<unsigned>(g.key_tile_count), static_cast<unsigned>(g.kv_heads),
                  static_cast<unsigned>(g.batch));
  auto* const stream = static_cast<cudaStream_t>(context.stream);
  using Kernel = void (*)(Geometry, BackwardParams, int*);
  constexpr Kernel kKernels[2][2] = {
      {&plain_backward_kernel<false, false>, &plain_backward_kernel<false, true>},
      {&plain_backward_kernel<true, false>, &plain_backward_kernel<true, true>}};
  kKernels[context.deterministic][rounded]<<<grid, kThreads, 0, stream>>>(
      g, params, reinterpret_cast<int*>(context.workspace.data()));
  check_launch("plain backward");
  if (!rounded) return;
  allow_shared_memory(reinterpret_cast<const void*>(&round_keys_kernel), kSumBytes);
  round_keys_kernel<<<grid, kThreads, kSumBytes, stream>>>(g, params);
  check_launch("plain backward, keys");
}

}  // namespace annulus::attn::cuda
