#pragma once

#include "attention/kernels/cuda/device/gather.cuh"
#include "attention/kernels/sm90/backward_shared.cuh"
#include "attention/kernels/sm90/ptx.cuh"

#include <cstddef>
#include <cstdint>

// Gradients on their way to memory.
namespace annulus::attn::sm90 {

/// Exchanges a and b where `swapped`.
__device__ __forceinline__ void exchange(float2& a, float2& b, bool swapped) {
  const float2 first = swapped ? b : a;
  b = swapped ? a : b;
  a = first;
}

/// The warp's 16 rows of dQ, from row `row` of the step on, to boxes of 32 columns and kBoxRows
/// rows. Two rows that follow each other have the same 32 bytes of a swizzled row's in turn, so
/// each lane stores its four pieces of a box in an order of its own: no two lanes that store at
/// once meet in a bank.
template <int kCount>
__device__ __forceinline__ void stage_dq(unsigned char* boxes, int row, int lane, float scale,
                                         const float (&dq)[kCount]) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = row + (lane >> 2) + 8 * h;
    // Piece 0 lies at chunk 0 or 1 of the row; piece i at 2 i more, XORed like the rest.
    const int chunk = (2 * (r & 3) + ((lane >> 1) & 1)) ^ (r & 7);
    const std::uint32_t first = 16 * chunk + 8 * (lane & 1);
#pragma unroll
    for (int box = 0; box < kCount / 16; ++box) {
      float2 pieces[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int i = 16 * box + 4 * j + 2 * h;
        pieces[j] = make_float2(dq[i] * scale, dq[i + 1] * scale);
      }
      exchange(pieces[0], pieces[1], (r & 1) != 0);
      exchange(pieces[2], pieces[3], (r & 1) != 0);
      exchange(pieces[0], pieces[2], (r & 2) != 0);
      exchange(pieces[1], pieces[3], (r & 2) != 0);
      unsigned char* const at = boxes + (box * kBoxRows + r) * kRowBytes;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        store_shared(reinterpret_cast<float*>(at + (first ^ (32U * k))), pieces[k]);
      }
    }
  }
  fence_async_shared();
}

/// The same of dQ^T of 64 columns and kBoxRows rows: the warp's 16 columns, from `column` on. Lanes
/// that store at once have 8 columns of 4 rows, in 8 chunks: all banks.
struct ColumnStage {
  std::uint32_t first;

  __device__ __forceinline__ ColumnStage(unsigned char* boxes, int column, int lane) {
    const int c = column + (lane >> 2);
    first = shared_address(boxes) +
            static_cast<std::uint32_t>(c / 32 * kBoxRows * kRowBytes + 4 * (c & 3)) +
            place_in_block(2 * (lane & 3), c % 32 / 4);
  }

  /// Of the 8 rows that a thread has at j.
  __device__ __forceinline__ void store(int j, float scale, const float (&dq)[kBoxRows / 2]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int h = i / 2;
      const int e = i % 2;
      // 8 columns are 2 chunks, a row changes the lowest bit of a chunk.
      const std::uint32_t at = (first ^ (32U * h + 16U * e)) + kRowBytes * e;
      store_shared(at + 8 * j * kRowBytes, __float_as_uint(dq[4 * j + i] * scale));
    }
  }
};

/// The warp's 16 keys of dK or dV, `key` the first of them, written or added to. What is added to
/// is read some columns at a time: one after another, each read would wait for the store before it.
template <int kDim>
__device__ __forceinline__ void store_keys(float* to, std::int64_t stride, int key, int keys,
                                           int lane, float scale, bool assign,
                                           const float (&sum)[kDim / 2]) {
  constexpr int kAtOnce = 4;
  const int row = key + (lane >> 2) + 8 * (lane & 1);
  float* const at = to + row * stride + 2 * (lane & 2);
#pragma unroll
  for (int first = 0; first < kDim / 8; first += kAtOnce) {
    float4 old[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      old[i] = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
      if (!assign && row < keys) old[i] = *reinterpret_cast<const float4*>(at + 8 * (first + i));
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int j = first + i;
      const float part[4] = {sum[4 * j], sum[4 * j + 1], sum[4 * j + 2], sum[4 * j + 3]};
      const float4 v = cuda::four_columns(part, lane);
      if (row >= keys) continue;
      *reinterpret_cast<float4*>(at + 8 * j) =
          make_float4(fmaf(v.x, scale, old[i].x), fmaf(v.y, scale, old[i].y),
                      fmaf(v.z, scale, old[i].z), fmaf(v.w, scale, old[i].w));
    }
  }
}

/// Of four lanes that follow each other, lane c gets x[c] of each, in their order.
__device__ __forceinline__ uint4 across_quad(std::uint32_t (&x)[4], int lane) {
#pragma unroll
  for (int step = 1; step < 4; step *= 2) {
    const bool high = (lane & step) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & step) != 0) continue;
      const std::uint32_t other = __shfl_xor_sync(0xffffffffU, high ? x[i] : x[i + step], step);
      x[i] = high ? other : x[i];
      x[i + step] = high ? x[i + step] : other;
    }
  }
  return make_uint4(x[0], x[1], x[2], x[3]);
}

/// The same, rounded to T and written: 16 columns of 16 keys at once, 32 bytes a key.
template <typename T, int kDim>
__device__ __forceinline__ void round_keys(std::byte* to, std::int64_t stride, int key, int keys,
                                           int lane, float scale, const float (&sum)[kDim / 2]) {
  const int row = key + (lane >> 2) + 8 * (lane & 1);
  std::byte* const at = to + row * stride * 2 + 8 * (lane & 2);
#pragma unroll
  for (int j = 0; j < kDim / 16; ++j) {
    std::uint32_t packs[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      packs[i] = pack(sum[8 * j + 2 * i] * scale, sum[8 * j + 2 * i + 1] * scale, T());
    }
    const uint4 v = across_quad(packs, lane);
    if (row < keys) *reinterpret_cast<uint4*>(at + 32 * j) = v;
  }
}

/// Columns of dK or dV from element `first` on, as the launch wants them.
template <typename T, int kDim>
__device__ __forceinline__ void leave_keys(const Output& operand, std::int64_t first, int key,
                                           int keys, int lane, float scale, bool assign,
                                           const float (&sum)[kDim / 2]) {
  if (operand.dtype == DType::f32) {
    store_keys<kDim>(static_cast<float*>(operand.data) + first, operand.token_stride, key, keys,
                     lane, scale, assign, sum);
  } else {
    round_keys<T, kDim>(static_cast<std::byte*>(operand.data) + 2 * first, operand.token_stride,
                        key, keys, lane, scale, sum);
  }
}

/// Of dK^T or dV^T the warp's 16 columns of the operand, from element `first` on, and kCount / 2 *
/// 4 keys from `key` on, as the launch wants them. Elements of 2 x 2 lanes change places, so that a
/// lane has 4 columns of one key: a store writes all 16 columns of 8 keys.
template <typename T, int kCount>
__device__ __forceinline__ void leave_turned(const Output& operand, std::int64_t first, int key,
                                             int keys, int lane, float scale, bool assign,
                                             const float (&sum)[kCount]) {
  const bool odd = (lane & 4) != 0;
  const bool high = (lane & 8) != 0;
  const int row = key + 2 * (lane & 3) + (odd ? 1 : 0);
  const std::int64_t at = first + row * operand.token_stride + (high ? 8 : 0) + (lane >> 4) * 4;
#pragma unroll
  for (int j = 0; j < kCount / 4; ++j) {
    float2 pairs[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float a = sum[4 * j + 2 * h] * scale;
      const float b = sum[4 * j + 2 * h + 1] * scale;
      const float other = __shfl_xor_sync(0xffffffffU, odd ? a : b, 4);
      pairs[h] = odd ? make_float2(other, b) : make_float2(a, other);
    }
    const float2 own = high ? pairs[1] : pairs[0];
    const float2 given = high ? pairs[0] : pairs[1];
    const float2 got = make_float2(__shfl_xor_sync(0xffffffffU, given.x, 8),
                                   __shfl_xor_sync(0xffffffffU, given.y, 8));
    float4 v =
        high ? make_float4(got.x, got.y, own.x, own.y) : make_float4(own.x, own.y, got.x, got.y);
    if (row + 8 * j >= keys) continue;
    const std::int64_t to = at + 8 * j * operand.token_stride;
    if (operand.dtype == DType::f32) {
      auto* const place = reinterpret_cast<float4*>(static_cast<float*>(operand.data) + to);
      if (!assign) {
        const float4 old = *place;
        v = make_float4(old.x + v.x, old.y + v.y, old.z + v.z, old.w + v.w);
      }
      *place = v;
    } else {
      *reinterpret_cast<std::uint64_t*>(static_cast<std::byte*>(operand.data) + 2 * to) =
          pack(v.x, v.y, T()) | std::uint64_t{pack(v.z, v.w, T())} << 32;
    }
  }
}

}  // namespace annulus::attn::sm90
