#pragma once

#include "attention/kernels/cuda/device/numbers.cuh"
#include "attention/kernels/cuda/device/tiles.cuh"

#include <cstdint>

// One (query, key) pair at a time, for the kernels that need no speed.
namespace annulus::attn::cuda {

/// sum a[i] b[i]; indices are of element 0.
template <typename Real>
__device__ inline Real dot(const Input& a, std::int64_t a_index, const Input& b,
                           std::int64_t b_index, std::int64_t n) {
  Real sum = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    sum += load_element<Real>(a.data, a.dtype, a_index + i) *
           load_element<Real>(b.data, b.dtype, b_index + i);
  }
  return sum;
}

/// P and dS of a pair; dS without softmax_scale. `source`: of K and V.
template <typename Real>
struct PairGradient {
  Real p, ds;
};
template <typename Real>
__device__ inline PairGradient<Real> gradient_of(const Geometry& g, const BackwardParams& p,
                                                 std::int64_t batch, std::int64_t head,
                                                 std::int64_t query_token, std::int32_t source,
                                                 std::int64_t key_token) {
  const std::int64_t kv = kv_head_of(g, head);
  const Real lse = *f32_row(p.lse, batch, query_token, head);
  if (lse == -static_cast<Real>(kInfinity)) return {0, 0};
  const Real delta = *f32_row(p.delta, batch, query_token, head);
  const Input k = keys_of(g, p, source);
  const Real product = dot<Real>(p.q, index_of(p.q, batch, query_token, head), k,
                                 index_of(k, batch, key_token, kv), g.head_dim);
  const Input v = values_of(g, p, source);
  const Real dp = dot<Real>(p.dout, index_of(p.dout, batch, query_token, head), v,
                            index_of(v, batch, key_token, kv), g.head_dim_v);
  const Logit<Real> logit = logit_of(g, product);
  const Real probability = exp_of(logit.value - lse);
  return {probability, probability * (dp - delta) * logit.slope};
}

__device__ inline float warp_sum(float x) {
  for (int mask = 16; mask > 0; mask /= 2) x += __shfl_xor_sync(0xffffffffU, x, mask);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int mask = 16; mask > 0; mask /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, mask));
  return x;
}

/// The whole warp: waits for all keys of a segment.
__device__ inline bool await_segment_warp(const Geometry& g, const KeySegment& segment) {
  if (segment.ready == nullptr) return true;
  bool good = true;
  if ((threadIdx.x & 31U) == 0) good = await_all(g, segment);
  return __all_sync(0xffffffffU, good) != 0;
}

/// Tokens of all segments.
__device__ inline std::int64_t key_count(const Geometry& g) {
  std::int64_t count = 0;
  for (int i = 0; i < g.key_count; ++i) count += g.keys[i].count;
  return count;
}

/// Place of a segment's first key among those of all segments.
__device__ inline std::int64_t first_column(const Geometry& g, int segment) {
  std::int64_t count = 0;
  for (int i = 0; i < segment; ++i) count += g.keys[i].count;
  return count;
}

/// Which keys of `tile` a row of the launch sees.
__device__ inline VisibleKeys visible_in_tile(const Geometry& g, const Tile& tile,
                                              std::int64_t row) {
  if (row < tile.row || row >= tile.row + tile.rows) return all_keys(0);
  if (tile.full) return all_keys(tile.keys);
  const KeySegment& segment = g.keys[tile.segment];
  return visible_keys(g, row, segment.position + tile.key * segment.stride, segment.stride,
                      tile.keys);
}

}  // namespace annulus::attn::cuda
