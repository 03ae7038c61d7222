#include "tests/gpu/device_attention.h"

#include "runtime/base/dtype.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace annulus::testing {
namespace {

std::size_t bytes_of(const Shape& s, std::int64_t dim, DType dtype) {
  return static_cast<std::size_t>(s.seq * s.heads * dim * size_of(dtype));
}

DeviceBytes normal_values(const Shape& s, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  const auto count = static_cast<std::size_t>(s.seq * s.heads * s.head_dim);
  std::vector<std::byte> values(bytes_of(s, s.head_dim, s.dtype));
  for (std::size_t i = 0; i < count; ++i) {
    store_f64(values.data(), s.dtype, static_cast<std::int64_t>(i), normal(generator));
  }
  return DeviceBytes(values);
}

std::vector<RowIntervals> intervals_of(const Shape& s) {
  std::vector<RowIntervals> rows;
  for (std::int64_t i = 0; i < s.seq; ++i) {
    rows.push_back({KeyInterval{0, s.causal ? i + 1 : s.seq}, KeyInterval{}});
  }
  return rows;
}

std::vector<attn::Tile> tiles_of(const Shape& s, const attn::TileLimits& grid) {
  std::vector<attn::Tile> tiles;
  for (std::int64_t row = 0; row < s.seq; row += grid.rows) {
    const std::int64_t rows = std::min(grid.rows, s.seq - row);
    const std::int64_t end = s.causal ? row + rows : s.seq;
    for (std::int64_t key = 0; key < end; key += grid.keys) {
      const std::int64_t keys = std::min(grid.keys, s.seq - key);
      tiles.push_back({static_cast<std::int32_t>(row), static_cast<std::int32_t>(rows), 0,
                       static_cast<std::int32_t>(keys), key, !s.causal || key + keys <= row + 1});
    }
  }
  return tiles;
}

}  // namespace

attn::KernelQuery Shape::query() const {
  return {
      .dtype = dtype, .head_dim = head_dim, .head_dim_v = head_dim, .backend = "cuda", .keys = seq};
}

attn::AttendGeometry DeviceAttention::host_geometry() {
  for (const attn::Tile& tile : tiles_) {
    tile_pairs_ += std::int64_t{tile.rows} * tile.keys * shape_.heads;
  }
  return {.batch = 1,
          .heads = shape_.heads,
          .head_dim = shape_.head_dim,
          .head_dim_v = shape_.head_dim,
          .softmax_scale = 1.0 / std::sqrt(static_cast<double>(shape_.head_dim)),
          .sequence_keys = shape_.seq,
          .rows = shape_.seq,
          .queries = queries_,
          .keys = keys_,
          .tiles = tiles_,
          .intervals = intervals_,
          .key_tokens = shape_.seq,
          .query_tokens = shape_.seq};
}

DeviceAttention::DeviceAttention(const Shape& shape, const attn::Kernel& kernel)
    : shape_(shape),
      kernel_(kernel),
      grid_(attn::tiles_for(kernel, shape.query())),
      queries_{{0, 0, shape.seq}},
      keys_{{0, 0, 1, shape.seq}},
      tiles_(tiles_of(shape, grid_)),
      intervals_(intervals_of(shape)),
      host_(host_geometry()),
      geometry_(host_, kernel),
      q_(normal_values(shape, 1)),
      k_(normal_values(shape, 2)),
      v_(normal_values(shape, 3)),
      dout_(normal_values(shape, 4)),
      out_(bytes_of(shape, shape.head_dim, shape.dtype)),
      lse_(bytes_of(shape, 1, DType::f32)),
      delta_(lse_.size()),
      dq_(bytes_of(shape, shape.head_dim, DType::f32)),
      dk_(dq_.size()),
      dv_(dq_.size()),
      workspace_(static_cast<std::size_t>(
          std::max({std::int64_t{16}, kernel.workspace_bytes(host_, false, 1),
                    kernel.workspace_bytes(host_, true, 1)}))),
      flops_(sizeof(std::int64_t)) {
  check_cuda(cudaMemset(delta_.data(), 0, delta_.size()), "cudaMemset");
  check_cuda(cudaMemset(flops_.data(), 0, flops_.size()), "cudaMemset");
}

attn::Input DeviceAttention::input(const DeviceBytes& memory) const {
  const std::int64_t token = shape_.heads * shape_.head_dim;
  return {memory.data(), shape_.dtype, shape_.seq * token, token, shape_.head_dim};
}

attn::Output DeviceAttention::output(const DeviceBytes& memory, DType dtype,
                                     std::int64_t dim) const {
  return {memory.data(), dtype, shape_.seq * shape_.heads * dim, shape_.heads * dim, dim};
}

attn::LaunchContext DeviceAttention::context() const {
  attn::LaunchContext context;
  context.workspace = {workspace_.data(), workspace_.size()};
  context.flops = reinterpret_cast<std::int64_t*>(flops_.data());
  return context;
}

void DeviceAttention::forward() const {
  kernel_.forward({.geometry = geometry_.geometry(),
                   .q = input(q_),
                   .k = input(k_),
                   .v = input(v_),
                   .out = output(out_, shape_.dtype, shape_.head_dim),
                   .lse = output(lse_, DType::f32, 1),
                   .state = {}},
                  context());
}

void DeviceAttention::backward() const {
  const auto row_values = [&](const DeviceBytes& memory) {
    return attn::Input{memory.data(), DType::f32, shape_.seq * shape_.heads, shape_.heads, 1};
  };
  kernel_.backward({.geometry = geometry_.geometry(),
                    .q = input(q_),
                    .k = input(k_),
                    .v = input(v_),
                    .dout = input(dout_),
                    .lse = row_values(lse_),
                    .delta = row_values(delta_),
                    .dq = output(dq_, DType::f32, shape_.head_dim),
                    .dk = output(dk_, DType::f32, shape_.head_dim),
                    .dv = output(dv_, DType::f32, shape_.head_dim),
                    .dq_assign = true,
                    .dkv_assign = true},
                   context());
}

std::int64_t DeviceAttention::executed_flops() const {
  std::int64_t counted = 0;
  flops_.read(reinterpret_cast<std::byte*>(&counted));  // waits for the default stream
  check_cuda(cudaMemset(flops_.data(), 0, flops_.size()), "cudaMemset");
  return counted;
}

std::int64_t DeviceAttention::padded_pairs() const {
  const auto tiles = static_cast<std::int64_t>(tiles_.size());
  return tiles * grid_.rows * grid_.keys * shape_.heads;
}

std::int64_t DeviceAttention::exact_pairs() const {
  const std::int64_t seq = shape_.seq;
  return shape_.heads * (shape_.causal ? seq * (seq + 1) / 2 : seq * seq);
}

}  // namespace annulus::testing
