#pragma once

#include <cstdint>

// Products as threads hold them to rows as memory wants them, by shuffles. Plain C++, as
// places.cuh.
namespace annulus::attn::cuda {

/// Four consecutive columns of one row, from two threads' parts of a 16 x 8 product: even lanes get
/// row g, columns 2t .. 2t+3, odd ones row g+8, columns 2(t-1) .. 2(t-1)+3.
__device__ inline float4 four_columns(const float (&c)[4], int lane) {
  const bool odd = (lane & 1) != 0;
  const float x = __shfl_xor_sync(0xffffffffU, odd ? c[0] : c[2], 1);
  const float y = __shfl_xor_sync(0xffffffffU, odd ? c[1] : c[3], 1);
  return odd ? make_float4(x, y, c[2], c[3]) : make_float4(c[0], c[1], x, y);
}

/// By value: a choice of two lvalues would be one of addresses.
__device__ inline float4 pick(bool first, float4 a, float4 b) {
  return make_float4(first ? a.x : b.x, first ? a.y : b.y, first ? a.z : b.z, first ? a.w : b.w);
}

/// What lane `lane ^ kMask` holds.
template <int kMask>
__device__ inline float4 exchange(const float4& v) {
  return make_float4(
      __shfl_xor_sync(0xffffffffU, v.x, kMask), __shfl_xor_sync(0xffffffffU, v.y, kMask),
      __shfl_xor_sync(0xffffffffU, v.z, kMask), __shfl_xor_sync(0xffffffffU, v.w, kMask));
}

/// A 16 x 32 product as whole rows: with g = lane / 4, rows[i] are four columns of row
/// 4 i + g % 4, from columns_of_row(lane) on. Eight lanes hold the 128 bytes of a row.
__device__ inline int columns_of_row(int lane) {
  return (lane & 16) + 8 * (lane & 1) + 2 * (lane & 2);
}
__device__ inline void gather_rows(float4 (&rows)[4], const float (&c)[4][4], int lane) {
  const bool odd = (lane & 1) != 0;
  const bool high = (lane & 16) != 0;
  float4 upper[2], lower[2];  // rows g and g + 8, 64 bytes in four lanes
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float4 left = four_columns(c[2 * i], lane);
    const float4 right = four_columns(c[2 * i + 1], lane);
    const float4 other = exchange<1>(pick(odd, left, right));
    upper[i] = pick(odd, other, left);
    lower[i] = pick(odd, right, other);
  }
  const float4 u = exchange<16>(pick(high, upper[0], upper[1]));
  const float4 l = exchange<16>(pick(high, lower[0], lower[1]));
  rows[0] = pick(high, u, upper[0]);
  rows[1] = pick(high, upper[1], u);
  rows[2] = pick(high, l, lower[0]);
  rows[3] = pick(high, lower[1], l);
}

}  // namespace annulus::attn::cuda
