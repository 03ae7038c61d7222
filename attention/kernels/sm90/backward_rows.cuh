#pragma once

#include "attention/kernels/cuda/device/gather.cuh"
#include "attention/kernels/sm90/backward_shared.cuh"

#include <cstdint>

// Gradients on their way to memory.
namespace annulus::attn::sm90 {

/// The warp's 16 x 64 of dQ, from row `row` of the step on: added where they are of its rows. L2
/// takes whole 128 bytes of a row fastest.
__device__ __forceinline__ void add_dq(float* to, std::int64_t stride, int row, int rows, int lane,
                                       float scale, const float (&dq)[32]) {
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    float columns[4][4];
#pragma unroll
    for (int i = 0; i < 16; ++i) columns[i / 4][i % 4] = dq[16 * part + i] * scale;
    float4 whole[4];
    cuda::gather_rows(whole, columns, lane);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = row + 4 * i + ((lane >> 2) & 3);
      add_in_memory(to + r * stride + 32 * part + cuda::columns_of_row(lane), whole[i], r < rows);
    }
  }
}

/// The same as it is to rows of shared memory, `stride` floats from one to the next, for the copy
/// engine.
__device__ __forceinline__ void stage_dq(float* to, int stride, int row, int lane, float scale,
                                         const float (&dq)[32]) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float* const at = to + (row + (lane >> 2) + 8 * h) * stride + 2 * (lane & 3);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      store_shared(at + 8 * j,
                   make_float2(dq[4 * j + 2 * h] * scale, dq[4 * j + 2 * h + 1] * scale));
    }
  }
  fence_async_shared();
}

/// The same to a step's boxes of 32 columns and kRows rows, from column `column` on.
template <int kRows>
__device__ __forceinline__ void stage_boxes(unsigned char* boxes, int column, int row, int lane,
                                            float scale, const float (&dq)[32]) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = row + (lane >> 2) + 8 * h;
    unsigned char* const at = boxes + ((column / 32 * kRows + r) * kRowBytes + 8 * (lane & 1));
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int chunk = 2 * (j % 4) + ((lane >> 1) & 1);
      store_shared(
          reinterpret_cast<float*>(at + j / 4 * kRows * kRowBytes + 16 * (chunk ^ (r & 7))),
          make_float2(dq[4 * j + 2 * h] * scale, dq[4 * j + 2 * h + 1] * scale));
    }
  }
  fence_async_shared();
}

/// The warp's 16 keys of dK or dV, `key` the first of them, written or added to.
template <int kDim>
__device__ __forceinline__ void store_keys(float* to, std::int64_t stride, int key, int keys,
                                           int lane, float scale, bool assign,
                                           const float (&sum)[kDim / 2]) {
  const int row = key + (lane >> 2) + 8 * (lane & 1);
  float* const at = to + row * stride + 2 * (lane & 2);
#pragma unroll
  for (int j = 0; j < kDim / 8; ++j) {
    const float part[4] = {sum[4 * j], sum[4 * j + 1], sum[4 * j + 2], sum[4 * j + 3]};
    const float4 v = cuda::four_columns(part, lane);
    if (row >= keys) continue;
    auto* const place = reinterpret_cast<float4*>(at + 8 * j);
    const float4 old = assign ? make_float4(0.0F, 0.0F, 0.0F, 0.0F) : *place;
    *place = make_float4(fmaf(v.x, scale, old.x), fmaf(v.y, scale, old.y), fmaf(v.z, scale, old.z),
                         fmaf(v.w, scale, old.w));
  }
}

}  // namespace annulus::attn::sm90
