// What no tile names: rows without keys, and the zeroes that gradients begin with. Grids follow the
// tile index: block x of the first kernel serves the rows between query tile x - 1 and query tile
// x.
#include "attention/kernels/cuda/device/blocks.cuh"
#include "attention/kernels/cuda/device/numbers.cuh"
#include "attention/kernels/cuda/launch.h"

namespace annulus::attn::cuda {

namespace {

constexpr int kThreads = 128;

__global__ void fill_rows(const __grid_constant__ Geometry g,
                          const __grid_constant__ ForwardParams p) {
  const int x = static_cast<int>(blockIdx.x);
  const auto head = static_cast<int>(blockIdx.y);
  const auto batch = static_cast<int>(blockIdx.z);
  std::int64_t first = 0;
  if (x > 0) {
    const int begin = g.row_tiles[x - 1];
    first = g.tiles[begin].row + totals_of(g.tiles, begin, g.row_tiles[x]).rows;
  }
  const std::int64_t last = x < g.row_tile_count ? g.tiles[g.row_tiles[x]].row : g.rows;
  for (std::int64_t row = first; row < last; ++row) {
    const std::int64_t token = token_of_row(g, row);
    float* lse = f32_row(p.lse, batch, token, head);
    const bool seen = p.resume && *lse != -kInfinity;
    const float* state = seen ? f32_row(p.state, batch, token, head) : nullptr;
    for (int d = static_cast<int>(threadIdx.x); d < g.head_dim_v; d += kThreads) {
      const float value = seen ? state[d] : 0.0F;
      if (p.finish) {
        store_element(p.out.data, p.out.dtype, index_of(p.out, batch, token, head) + d, value);
      } else if (!seen) {
        f32_row(p.state, batch, token, head)[d] = value;
      }
    }
    __syncthreads();
    if (!seen && threadIdx.x == 0) *lse = -kInfinity;
  }
}

__global__ void clear_rows(const __grid_constant__ Geometry g, const Output to) {
  for (std::int64_t row = blockIdx.x; row < g.rows; row += gridDim.x) {
    float* values = f32_row(to, blockIdx.z, token_of_row(g, row), blockIdx.y);
    for (int d = static_cast<int>(threadIdx.x); d < g.head_dim; d += kThreads) values[d] = 0.0F;
  }
}

__global__ void clear_keys(const __grid_constant__ Geometry g, const Output to, std::int64_t dim) {
  const std::int64_t kv_head = blockIdx.y + g.first_kv_head;
  for (int i = 0; i < g.key_count; ++i) {
    for (std::int64_t j = blockIdx.x; j < g.keys[i].count; j += gridDim.x) {
      float* values = f32_row(to, blockIdx.z, g.keys[i].token + j, kv_head);
      for (int d = static_cast<int>(threadIdx.x); d < dim; d += kThreads) values[d] = 0.0F;
    }
  }
}

__global__ void clear_turns(int* turns, std::int64_t count) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) turns[i] = 0;
}

}  // namespace

void fill_unvisited_rows(const ForwardParams& params, const LaunchContext& context) {
  const Geometry g = geometry_of(params.geometry, context);
  if (g.heads == 0 || g.batch == 0 || g.rows == 0) return;
  const dim3 grid(static_cast<unsigned>(g.row_tile_count + 1), static_cast<unsigned>(g.heads),
                  static_cast<unsigned>(g.batch));
  fill_rows<<<grid, kThreads, 0, static_cast<cudaStream_t>(context.stream)>>>(g, params);
  check_launch("fill_rows");
}

void clear_gradients(const BackwardParams& params, const LaunchContext& context,
                     std::int64_t turns) {
  const Geometry g = geometry_of(params.geometry, context);
  auto* stream = static_cast<cudaStream_t>(context.stream);
  if (g.heads == 0 || g.batch == 0) return;
  if (turns > 0) {
    clear_turns<<<static_cast<unsigned>((turns + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
        reinterpret_cast<int*>(context.workspace.data()), turns);
    check_launch("clear_turns");
  }
  const auto heads = static_cast<unsigned>(g.heads);
  const auto batch = static_cast<unsigned>(g.batch);
  if (params.dq_assign && g.rows > 0) {
    const auto blocks = static_cast<unsigned>(g.rows < 65536 ? g.rows : 65536);
    clear_rows<<<dim3(blocks, heads, batch), kThreads, 0, stream>>>(g, params.dq);
    check_launch("clear_rows");
  }
  if (params.dkv_assign && g.key_count > 0) {
    const dim3 grid(1024, static_cast<unsigned>(g.kv_heads), batch);
    clear_keys<<<grid, kThreads, 0, stream>>>(g, params.dk, g.head_dim);
    clear_keys<<<grid, kThreads, 0, stream>>>(g, params.dv, g.head_dim_v);
    check_launch("clear_keys");
  }
}

}  // namespace annulus::attn::cuda
