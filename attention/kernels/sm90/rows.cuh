#pragma once

#include "attention/kernels/sm90/softmax.cuh"

#include <cstdint>

// The ends of a query tile, for one consumer warpgroup: its 64 query rows come to shared memory,
// output and sums begin with a state or with nothing, and leave as a state or finished.
namespace annulus::attn::sm90 {

/// Where a thread stands in its warpgroup: one register, from which the rest is quickly found.
struct Lane {
  int index;  ///< among all consumers
  __device__ __forceinline__ explicit Lane(int thread_of_block)
      : index(thread_of_block - kGroupThreads) {}
  __device__ __forceinline__ int group() const { return index / kGroupThreads; }
  __device__ __forceinline__ int thread() const { return index % kGroupThreads; }
  __device__ __forceinline__ int lane() const { return index % 32; }
  /// First row of its warp, within the item.
  __device__ __forceinline__ int warp_row() const { return index / 32 * 16; }
  /// Row h of this thread's two, within the item.
  __device__ __forceinline__ int row(int h) const { return warp_row() + (lane() >> 2) + 8 * h; }
};

__device__ __forceinline__ void sync_group(const Lane& at) {
  barrier_wait(kGroupBarrier + at.group(), kGroupThreads);
}

/// 16-bit elements of q, k, v and out are moved, never computed with: their type does not matter.
template <typename Pointer>
__device__ __forceinline__ auto* element_at(const Operand<Pointer>& operand, std::int64_t batch,
                                            std::int64_t token, std::int64_t head) {
  using Element = std::conditional_t<std::is_const_v<std::remove_pointer_t<Pointer>>,
                                     const std::uint16_t, std::uint16_t>;
  return static_cast<Element*>(operand.data) + cuda::index_of(operand, batch, token, head);
}

/// Starts the copy of the warpgroup's rows to `to`; rows that the item lacks become 0.
template <int kDim>
__device__ __forceinline__ void copy_queries(const cuda::Geometry& g, const ForwardParams& p,
                                             const Item& item, const Lane& at, unsigned char* to) {
  constexpr int kChunks = kDim / 8;
  constexpr int kStride = kGroupThreads / kChunks;
  const int chunk = at.thread() % kChunks;
  const int rows = item.tile.rows - kGroupRows * at.group();
  const cuda::RowTokens tokens(g, item.tile.row, item.tile.rows);
  const std::uint16_t* q = element_at(p.q, item.batch, 0, item.head) + 8 * chunk;
#pragma unroll
  for (int i = 0; i < kGroupRows / kStride; ++i) {
    const int row = at.thread() / kChunks + i * kStride;
    const bool real = row < rows;
    const std::int64_t token =
        tokens.of(g, item.tile.row + (real ? kGroupRows * at.group() + row : 0));
    copy16(shared_address(to) + place_in_matrix(kGroupRows, row, chunk),
           q + token * p.q.token_stride, real);
  }
}

/// Rows continue from (state, lse), or start with nothing.
template <int kDim>
__device__ __forceinline__ void begin_rows(const cuda::Geometry& g, const ForwardParams& p,
                                           const Item& item, const Lane& at, float scale,
                                           float (&o)[kDim / 2], RowSums& sums) {
#pragma unroll
  for (int i = 0; i < kDim / 2; ++i) o[i] = 0.0F;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    sums.max[h] = -cuda::kInfinity;
    sums.sum[h] = 0.0F;
    if (!p.resume || at.row(h) >= item.tile.rows) continue;
    const std::int64_t token = cuda::token_of_row(g, item.tile.row + at.row(h));
    const float lse = *cuda::f32_row(p.lse, item.batch, token, item.head);
    if (lse == -cuda::kInfinity) continue;
    sums.max[h] = lse / (scale * cuda::kLn2);
    sums.sum[h] = (at.lane() & 3) == 0 ? 1.0F : 0.0F;
    const float* state = cuda::f32_row(p.state, item.batch, token, item.head) + 2 * (at.lane() & 3);
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
      const float2 pair = *reinterpret_cast<const float2*>(state + 8 * j);
      o[4 * j + 2 * h] = pair.x;
      o[4 * j + 2 * h + 1] = pair.y;
    }
  }
}

/// Normalises the output and writes lse.
template <int kDim>
__device__ __forceinline__ void finish_rows(const cuda::Geometry& g, const ForwardParams& p,
                                            const Item& item, const Lane& at, float scale,
                                            const RowSums& sums, float (&o)[kDim / 2]) {
  const cuda::RowTokens tokens(g, item.tile.row, item.tile.rows);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float total = sums.sum[h];
    total += __shfl_xor_sync(0xffffffffU, total, 1);
    total += __shfl_xor_sync(0xffffffffU, total, 2);
    const bool unseen = total == 0.0F;
    const float factor = 1.0F / total;
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& x = o[4 * j + 2 * h + e];
        x = unseen ? 0.0F : x * factor;  // 0 times what is not finite is no 0
      }
    }
    if ((at.lane() & 3) != 0 || at.row(h) >= item.tile.rows) continue;
    const std::int64_t token = tokens.of(g, item.tile.row + at.row(h));
    *cuda::f32_row(p.lse, item.batch, token, item.head) =
        unseen ? -cuda::kInfinity : sums.max[h] * (scale * cuda::kLn2) + logf(total);
  }
}

template <int kDim>
__device__ __forceinline__ void store_state(const cuda::Geometry& g, const ForwardParams& p,
                                            const Item& item, const Lane& at,
                                            const float (&o)[kDim / 2]) {
  const cuda::RowTokens tokens(g, item.tile.row, item.tile.rows);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (at.row(h) >= item.tile.rows) continue;
    const std::int64_t token = tokens.of(g, item.tile.row + at.row(h));
    float* state = cuda::f32_row(p.state, item.batch, token, item.head) + 2 * (at.lane() & 3);
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
      *reinterpret_cast<float2*>(state + 8 * j) =
          make_float2(o[4 * j + 2 * h], o[4 * j + 2 * h + 1]);
    }
  }
}

/// By way of the warp's rows of `rows`, where the warpgroup's queries were: so they leave in
/// 16-byte pieces.
template <typename T, int kDim>
__device__ __forceinline__ void store_out(const cuda::Geometry& g, const ForwardParams& p,
                                          const Item& item, const Lane& at, unsigned char* rows,
                                          const float (&o)[kDim / 2]) {
  constexpr int kChunks = kDim / 8;
  const std::uint32_t to = shared_address(rows);
  const int first = at.warp_row() % kGroupRows;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
#pragma unroll
    for (int j = 0; j < kChunks; ++j) {
      store_shared(to + place_in_matrix(kGroupRows, first + (at.lane() >> 2) + 8 * h, j) +
                       4 * static_cast<std::uint32_t>(at.lane() & 3),
                   pack(o[4 * j + 2 * h], o[4 * j + 2 * h + 1], T()));
    }
  }
  __syncwarp();
  const cuda::RowTokens tokens(g, item.tile.row, item.tile.rows);
  std::uint16_t* out = element_at(p.out, item.batch, 0, item.head);
  const int chunk = at.lane() % kChunks;
#pragma unroll 1  // else the places of all rows are computed before the keys, and spilled
  for (int i = 0; i < 16; i += 32 / kChunks) {
    const int row = i + at.lane() / kChunks;
    if (at.warp_row() + row >= item.tile.rows) continue;
    const std::int64_t token = tokens.of(g, item.tile.row + at.warp_row() + row);
    *reinterpret_cast<uint4*>(out + token * p.out.token_stride + 8 * chunk) =
        load_shared16(to + place_in_matrix(kGroupRows, first + row, chunk));
  }
}

}  // namespace annulus::attn::sm90
