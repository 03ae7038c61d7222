#include "tests/kernels/bench_launch.h"

#include "runtime/base/dtype.h"

#include <algorithm>
#include <random>

namespace annulus::bench {

using namespace attn;

namespace {

std::vector<std::byte> normal_values(DType dtype, std::int64_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<std::byte> bytes(static_cast<std::size_t>(n * size_of(dtype)));
  for (std::int64_t i = 0; i < n; ++i) store_f32(bytes.data(), dtype, i, normal(generator));
  return bytes;
}

}  // namespace

BenchLaunch::BenchLaunch(const Kernel& kernel, const Setup& s, int threads)
    : kernel_(kernel),
      setup_(s),
      threads_(threads),
      queries_{{0, 0, s.seq}},
      keys_{{0, 0, 1, s.seq}},
      q_(normal_values(s.dtype, s.seq * s.heads * s.dim, 1)),
      k_(normal_values(s.dtype, s.seq * s.heads / s.group * s.dim, 2)),
      v_(normal_values(s.dtype, s.seq * s.heads / s.group * s.dim, 3)),
      dout_(normal_values(s.dtype, s.seq * s.heads * s.dim, 4)),
      out_(q_.size()),
      lse_(static_cast<std::size_t>(s.seq * s.heads)),
      delta_(lse_.size()),
      dq_(static_cast<std::size_t>(s.seq * s.heads * s.dim)),
      dk_(static_cast<std::size_t>(s.seq * s.heads / s.group * s.dim)),
      dv_(dk_.size()) {
  for (std::int64_t i = 0; i < s.seq; ++i) {
    intervals_.push_back({KeyInterval{0, s.causal ? i + 1 : s.seq}, KeyInterval{}});
  }
  for (std::int64_t row = 0; row < s.seq; row += kernel.tile_q) {
    const std::int64_t rows = std::min(kernel.tile_q, s.seq - row);
    for (std::int64_t key = 0; key < s.seq; key += kernel.tile_k) {
      const std::int64_t keys = std::min(kernel.tile_k, s.seq - key);
      if (s.causal && key > row + rows - 1) break;
      tiles_.push_back({static_cast<std::int32_t>(row), static_cast<std::int32_t>(rows), 0,
                        static_cast<std::int32_t>(keys), key, !s.causal || key + keys - 1 <= row});
    }
  }
}

double BenchLaunch::exact_product_flops() const {
  double pairs = 0.0;
  for (const RowIntervals& row : intervals_) {
    for (const KeyInterval& i : row) pairs += static_cast<double>(i.end - i.begin);
  }
  return 2.0 * pairs * static_cast<double>(setup_.dim * setup_.heads);
}

AttendGeometry BenchLaunch::geometry() const {
  return {.heads = setup_.heads,
          .group = setup_.group,
          .head_dim = setup_.dim,
          .head_dim_v = setup_.dim,
          .softmax_scale = 0.088,
          .rows = setup_.seq,
          .queries = queries_,
          .keys = keys_,
          .tiles = tiles_,
          .intervals = intervals_};
}

Input BenchLaunch::input(const std::vector<std::byte>& data, std::int64_t heads) const {
  return {data.data(), setup_.dtype, 0, heads * setup_.dim, setup_.dim};
}

Output BenchLaunch::output(std::vector<float>& data, std::int64_t heads, std::int64_t dim) const {
  return {data.data(), DType::f32, 0, heads * dim, dim};
}

LaunchContext BenchLaunch::context(bool backward, std::int64_t& flops) {
  const std::int64_t bytes = kernel_.workspace_bytes(geometry(), backward, threads_);
  workspace_.resize(std::max(workspace_.size(), static_cast<std::size_t>(bytes)));
  LaunchContext context;
  context.threads = threads_;
  context.flops = &flops;
  context.workspace = workspace_;
  return context;
}

std::int64_t BenchLaunch::forward() {
  std::int64_t flops = 0;
  const LaunchContext c = context(false, flops);
  const std::int64_t heads = setup_.heads, kv_heads = heads / setup_.group, dim = setup_.dim;
  kernel_.forward({geometry(),
                   input(q_, heads),
                   input(k_, kv_heads),
                   input(v_, kv_heads),
                   {out_.data(), setup_.dtype, 0, heads * dim, dim},
                   output(lse_, heads, 1),
                   {}},
                  c);
  return flops;
}

std::int64_t BenchLaunch::backward() {
  std::int64_t flops = 0;
  const LaunchContext c = context(true, flops);
  const std::int64_t heads = setup_.heads, kv_heads = heads / setup_.group, dim = setup_.dim;
  kernel_.backward({geometry(),
                    input(q_, heads),
                    input(k_, kv_heads),
                    input(v_, kv_heads),
                    input(dout_, heads),
                    {lse_.data(), DType::f32, 0, heads, 1},
                    {delta_.data(), DType::f32, 0, heads, 1},
                    output(dq_, heads, dim),
                    output(dk_, kv_heads, dim),
                    output(dv_, kv_heads, dim),
                    true,
                    true},
                   c);
  return flops;
}

}  // namespace annulus::bench
