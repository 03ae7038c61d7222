#pragma once

#include "attention/kernels/cuda/device/places.cuh"
#include "attention/kernels/sm90/pack.cuh"
#include "attention/kernels/sm90/ptx.cuh"

#include <cmath>
#include <cstdint>

// The merge of a split launch (split.h): for each row the states of its query tile's parts, and the
// one that the launch resumes from, always in the same order.
namespace annulus::attn::sm90 {

/// e^(lse - most); rows that have seen nothing weigh nothing.
__device__ inline float weight_of(float lse, float most) {
  return lse == -cuda::kInfinity ? 0.0F : exp2_fast((lse - most) * cuda::kLog2E);
}

__device__ inline void add_weighted(float4& sum, const float* values, float weight) {
  const float4 x = *reinterpret_cast<const float4*>(values);
  sum.x = fmaf(x.x, weight, sum.x);
  sum.y = fmaf(x.y, weight, sum.y);
  sum.z = fmaf(x.z, weight, sum.z);
  sum.w = fmaf(x.w, weight, sum.w);
}

/// Four elements of the output, rounded once.
__device__ inline void store_merged(const Output& out, std::int64_t index, const float4& x) {
  const bool bf16 = out.dtype == DType::bf16;
  const std::uint64_t low = bf16 ? pack(x.x, x.y, Bf16()) : pack(x.x, x.y, Half());
  const std::uint64_t high = bf16 ? pack(x.z, x.w, Bf16()) : pack(x.z, x.w, Half());
  *reinterpret_cast<std::uint64_t*>(static_cast<std::uint16_t*>(out.data) + index) =
      low | high << 32;
}

/// One row's parts, in a warp: lane l weighs the parts l and l + 32. Parts that are not there and
/// parts that saw nothing are the same: neither is read, so that the bits do not depend on which of
/// those a query tile's other rows have it visit.
struct RowMerge {
  const float* lse;                   ///< of the first part
  const float* state;                 ///< the same
  std::int64_t lse_step, state_step;  ///< from part to part
  int parts;
  std::uint64_t there;  ///< bit n: part n is
  unsigned seen[2];     ///< the same: and it saw something
  float weight[2];
  float before;  ///< weight of the state that is resumed
  float total, most;

  __device__ inline void weigh(int lane, float lse_before) {
    float mine[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int part = lane + 32 * i;
      mine[i] = (there >> part & 1) != 0 ? lse[part * lse_step] : -cuda::kInfinity;
      seen[i] = __ballot_sync(0xffffffffU, mine[i] != -cuda::kInfinity);
    }
    most = fmaxf(mine[0], mine[1]);
    for (int step = 16; step > 0; step /= 2) {
      most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, step));
    }
    most = fmaxf(most, lse_before);
#pragma unroll
    for (int i = 0; i < 2; ++i) weight[i] = weight_of(mine[i], most);
    total = weight[0] + weight[1];
    for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(0xffffffffU, total, step);
    before = weight_of(lse_before, most);
    total += before;
  }

  /// Elements d to d + 3 of the row; where not `real` the lane only hands out its weights.
  __device__ inline float4 merged(int d, bool real, const float* resumed) const {
    float4 sum = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    if (real && before > 0.0F) add_weighted(sum, resumed + d, before);
#pragma unroll 8
    for (int part = 0; part < parts; ++part) {
      const float w = __shfl_sync(0xffffffffU, part < 32 ? weight[0] : weight[1], part & 31);
      const bool adds = ((part < 32 ? seen[0] : seen[1]) >> (part & 31) & 1U) != 0;
      if (real && adds) add_weighted(sum, state + part * state_step + d, w);
    }
    const float factor = total > 0.0F ? 1.0F / total : 0.0F;
    return make_float4(sum.x * factor, sum.y * factor, sum.z * factor, sum.w * factor);
  }
};

/// One warp: row `row` of query tile `i` of a head, packed ones where heads are packed.
__device__ inline void merge_row(const cuda::Geometry& g, const ForwardParams& p,
                                 const Parts& parts, int i, int row, int head_of_parts, int batch,
                                 int lane) {
  const SplitTile& tile = parts.tiles[i];
  if (row >= tile.rows) return;
  const std::int64_t heads = g.heads / parts.group;
  const std::int64_t before = (batch * heads + head_of_parts) * parts.most;
  const std::int64_t place = before * parts.rows + tile.row + row;
  RowMerge merge;
  merge.parts = parts.most;
  merge.there = tile.there;
  merge.lse = parts.lse + place;
  merge.lse_step = parts.rows;
  merge.state = parts.state + place * g.head_dim_v;
  merge.state_step = static_cast<std::int64_t>(parts.rows) * g.head_dim_v;
  const Unpacked at(parts, tile.row + row, head_of_parts);
  const std::int64_t token = cuda::token_of_row(g, at.row);
  float* const lse = cuda::f32_row(p.lse, batch, token, at.head);
  float* const state =
      p.resume || !p.finish ? cuda::f32_row(p.state, batch, token, at.head) : nullptr;
  merge.weigh(lane, p.resume ? *lse : -cuda::kInfinity);
  for (int first = 0; first < g.head_dim_v; first += 128) {
    const int d = first + 4 * lane;
    const bool real = d < g.head_dim_v;
    const float4 x = merge.merged(d, real, state);
    if (!real) continue;
    if (p.finish) {
      store_merged(p.out, cuda::index_of(p.out, batch, token, at.head) + d, x);
    } else {
      *reinterpret_cast<float4*>(state + d) = x;
    }
  }
  __syncwarp();  // all have read what was resumed
  if (lane == 0) *lse = merge.total > 0.0F ? merge.most + logf(merge.total) : -cuda::kInfinity;
}

}  // namespace annulus::attn::sm90
