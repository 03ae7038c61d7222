// The float64 oracle on the device: a thread a query row (out, lse, dq) or a key (dk, dv). It reads
// masks by row intervals, and looks at tiles for what a row sees beside its two intervals alone
// (RowTable: fixed keys lie in full tiles), and to count FLOPs. Float64 sums
// gather in the workspace and are rounded once: [batch][head][row][dim], then
// [batch][head][key][dim].
#include "attention/kernels/cuda/device/blocks.cuh"
#include "attention/kernels/cuda/device/pairs.cuh"
#include "attention/kernels/cuda/launch.h"

namespace annulus::attn::cuda {

namespace {

constexpr int kThreads = 64;
constexpr int kKeyBlocks = 64;

/// Key `j` of segment `i`, at `position`.
__device__ bool sees(const Geometry& g, std::int64_t row, int i, std::int64_t j,
                     std::int64_t position) {
  const KeyInterval* intervals = g.intervals + 2 * row;
  if ((position >= intervals[0].begin && position < intervals[0].end) ||
      (position >= intervals[1].begin && position < intervals[1].end)) {
    return true;
  }
  for (int t = 0; t < g.tile_count; ++t) {
    const Tile& tile = g.tiles[t];
    if (tile.full && tile.segment == i && row >= tile.row && row < tile.row + tile.rows &&
        j >= tile.key && j < tile.key + tile.keys) {
      return true;
    }
  }
  return false;
}

/// fn(source, token) for each key that the row sees. False where the launch was aborted.
template <typename Fn>
__device__ bool for_each_key(const Geometry& g, std::int64_t row, Fn&& fn) {
  for (int i = 0; i < g.key_count; ++i) {
    const KeySegment segment = g.keys[i];
    if (segment.ready != nullptr && !await_all(g, segment)) return false;
    for (std::int64_t j = 0; j < segment.count; ++j) {
      if (sees(g, row, i, j, segment.position + j * segment.stride)) {
        fn(segment.source, segment.token + j);
      }
    }
  }
  return true;
}

__global__ void count_kernel(const __grid_constant__ Geometry g, std::int64_t factor) {
  const TileTotals totals = totals_of(g.tiles, 0, g.tile_count);
  if (threadIdx.x == 0) count_flops(g, totals.pairs * factor);
}

__global__ void forward_kernel(const __grid_constant__ Geometry g,
                               const __grid_constant__ ForwardParams p, double* memory) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= g.rows) return;
  const std::int64_t head = blockIdx.y;
  const std::int64_t batch = blockIdx.z;
  const std::int64_t kv = kv_head_of(g, head);
  const std::int64_t token = token_of_row(g, row);
  const std::int64_t query = index_of(p.q, batch, token, head);
  double* sums = memory + ((batch * g.heads + head) * g.rows + row) * g.head_dim_v;
  const auto score = [&](std::int32_t source, std::int64_t key) {
    const Input k = keys_of(g, p, source);
    return logit_of(g, dot<double>(p.q, query, k, index_of(k, batch, key, kv), g.head_dim)).value;
  };
  float* lse = f32_row(p.lse, batch, token, head);
  constexpr double kNothing = -static_cast<double>(kInfinity);
  const double old = p.resume ? static_cast<double>(*lse) : kNothing;
  double top = old;
  // A NaN stays: it is to show in the row, which is not one that has seen nothing.
  const auto raise = [&](double x) { top = x > top || isnan(x) ? x : top; };
  const auto raise_to = [&](std::int32_t source, std::int64_t key) { raise(score(source, key)); };
  if (!for_each_key(g, row, raise_to)) return;
  const bool unseen = top == kNothing;
  const double keep = unseen || old == kNothing ? 0.0 : exp(old - top);
  double total = keep;
  for (std::int64_t d = 0; d < g.head_dim_v; ++d) {
    sums[d] = keep > 0.0 ? keep * f32_row(p.state, batch, token, head)[d] : 0.0;
  }
  for_each_key(g, row, [&](std::int32_t source, std::int64_t key) {
    const double weight = exp(score(source, key) - top);
    total += weight;
    const Input v = values_of(g, p, source);
    const std::int64_t values = index_of(v, batch, key, kv);
    for (std::int64_t d = 0; d < g.head_dim_v; ++d) {
      sums[d] += weight * load_element<double>(v.data, v.dtype, values + d);
    }
  });
  const Output& to = p.finish ? p.out : p.state;
  for (std::int64_t d = 0; d < g.head_dim_v; ++d) {
    store_element(to.data, p.finish ? to.dtype : DType::f32, index_of(to, batch, token, head) + d,
                  unseen ? 0.0 : sums[d] / total);
  }
  *lse = unseen ? -kInfinity : static_cast<float>(top + log(total));
}

__device__ void store_gradient(const Output& to, std::int64_t index, const double* sums,
                               std::int64_t dim, double factor, bool assign) {
  for (std::int64_t d = 0; d < dim; ++d) {
    const double old = assign ? 0.0 : load_element<double>(to.data, to.dtype, index + d);
    store_element(to.data, to.dtype, index + d, old + factor * sums[d]);
  }
}

__global__ void rows_kernel(const __grid_constant__ Geometry g,
                            const __grid_constant__ BackwardParams p, double* memory) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= g.rows) return;
  const std::int64_t head = blockIdx.y;
  const std::int64_t batch = blockIdx.z;
  if (!await_rows(g, head, row, 1)) return;
  const std::int64_t token = token_of_row(g, row);
  double* sums = memory + ((batch * g.heads + head) * g.rows + row) * g.head_dim;
  for (std::int64_t d = 0; d < g.head_dim; ++d) sums[d] = 0.0;
  const bool whole = for_each_key(g, row, [&](std::int32_t source, std::int64_t key) {
    const double ds = gradient_of<double>(g, p, batch, head, token, source, key).ds;
    const Input k = keys_of(g, p, source);
    const std::int64_t index = index_of(k, batch, key, kv_head_of(g, head));
    for (std::int64_t d = 0; d < g.head_dim; ++d) {
      sums[d] += ds * load_element<double>(k.data, k.dtype, index + d);
    }
  });
  if (!whole) return;
  store_gradient(p.dq, index_of(p.dq, batch, token, head), sums, g.head_dim, g.softmax_scale,
                 p.dq_assign);
}

/// dk and dv of one key; `sums` holds head_dim and head_dim_v numbers.
__device__ void differentiate_key(const Geometry& g, const BackwardParams& p, std::int64_t kv,
                                  int segment, std::int64_t j, double* sums) {
  const std::int64_t batch = blockIdx.z;
  const std::int64_t token = g.keys[segment].token + j;
  const std::int64_t position = g.keys[segment].position + j * g.keys[segment].stride;
  double* dv = sums + g.head_dim;
  for (std::int64_t d = 0; d < g.head_dim + g.head_dim_v; ++d) sums[d] = 0.0;
  const HeadRange heads = heads_of(g, kv);
  for (int head = heads.first; head < heads.last; ++head) {
    for (std::int64_t row = 0; row < g.rows; ++row) {
      if (!sees(g, row, segment, j, position)) continue;
      const std::int64_t query = token_of_row(g, row);
      const auto pair =
          gradient_of<double>(g, p, batch, head, query, g.keys[segment].source, token);
      const std::int64_t q = index_of(p.q, batch, query, head);
      const std::int64_t dout = index_of(p.dout, batch, query, head);
      for (std::int64_t d = 0; d < g.head_dim; ++d) {
        sums[d] += pair.ds * load_element<double>(p.q.data, p.q.dtype, q + d);
      }
      for (std::int64_t d = 0; d < g.head_dim_v; ++d) {
        dv[d] += pair.p * load_element<double>(p.dout.data, p.dout.dtype, dout + d);
      }
    }
  }
  store_gradient(p.dk, index_of(p.dk, batch, token, kv), sums, g.head_dim, g.softmax_scale,
                 p.dkv_assign);
  store_gradient(p.dv, index_of(p.dv, batch, token, kv), dv, g.head_dim_v, 1.0, p.dkv_assign);
}

__global__ void keys_kernel(const __grid_constant__ Geometry g,
                            const __grid_constant__ BackwardParams p, double* memory) {
  const std::int64_t dims = g.head_dim + g.head_dim_v;
  const std::int64_t keys = key_count(g);
  const std::int64_t kv = blockIdx.y + g.first_kv_head;
  double* sums = memory + g.batch * g.heads * g.rows * g.head_dim +
                 (static_cast<std::int64_t>(blockIdx.z) * g.kv_heads + blockIdx.y) * keys * dims;
  for (int i = 0; i < g.query_count; ++i) {
    if (g.queries[i].ready != nullptr && !await_all(g, g.queries[i])) return;
  }
  std::int64_t column = 0;
  for (int i = 0; i < g.key_count; ++i) {
    const KeySegment segment = g.keys[i];
    if (segment.ready != nullptr && !await_all(g, segment)) return;
    for (std::int64_t j = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
         j < segment.count; j += kKeyBlocks * kThreads) {
      differentiate_key(g, p, kv, i, j, sums + (column + j) * dims);
    }
    column += segment.count;
  }
}

dim3 row_grid(const Geometry& g) {
  return dim3(static_cast<unsigned>((g.rows + kThreads - 1) / kThreads),
              static_cast<unsigned>(g.heads), static_cast<unsigned>(g.batch));
}

void count(const Geometry& g, std::int64_t products, cudaStream_t stream) {
  if (g.tile_count == 0) return;
  count_kernel<<<1, 32, 0, stream>>>(g, 2 * g.batch * g.heads * products);
  check_launch("reference count");
}

}  // namespace

KernelEntries reference_entries() {
  return entries_of(&count_kernel, &forward_kernel, &rows_kernel, &keys_kernel);
}

void reference_forward(const ForwardParams& params, const LaunchContext& context) {
  const Geometry g = geometry_of(params.geometry, context);
  check_arguments(params.geometry, context, false, 0);
  if (g.rows == 0 || g.heads == 0 || g.batch == 0) return;
  auto* stream = static_cast<cudaStream_t>(context.stream);
  count(g, g.head_dim + g.head_dim_v, stream);
  forward_kernel<<<row_grid(g), kThreads, 0, stream>>>(
      g, params, reinterpret_cast<double*>(context.workspace.data()));
  check_launch("reference forward");
}

void reference_backward(const BackwardParams& params, const LaunchContext& context) {
  const Geometry g = geometry_of(params.geometry, context);
  check_arguments(params.geometry, context, true, 0);
  if (g.heads == 0 || g.batch == 0) return;
  auto* stream = static_cast<cudaStream_t>(context.stream);
  auto* memory = reinterpret_cast<double*>(context.workspace.data());
  count(g, 3 * g.head_dim + 2 * g.head_dim_v, stream);
  if (g.rows > 0) rows_kernel<<<row_grid(g), kThreads, 0, stream>>>(g, params, memory);
  const dim3 grid(kKeyBlocks, static_cast<unsigned>(g.kv_heads), static_cast<unsigned>(g.batch));
  if (g.key_count > 0) keys_kernel<<<grid, kThreads, 0, stream>>>(g, params, memory);
  check_launch("reference backward");
}

}  // namespace annulus::attn::cuda
