#pragma once

#include "attention/kernels/sm90/softmax.cuh"

#include <cstdint>

// The ends of a query tile, for one consumer warpgroup: its 64 query rows come to shared memory,
// output and sums begin with a state or with nothing, and leave as a state or finished. Porters
// (porter.cuh) do what needs no registers of consumers, in their place.
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

/// Token of a row of the item, counted from its first.
__device__ __forceinline__ std::int64_t token_of(const cuda::Geometry& g, const QueryTile& tile,
                                                 int row) {
  return tile.token >= 0 ? tile.token + row : cuda::token_of_row(g, tile.row + row);
}

/// Where its LSE and state are left.
__device__ __forceinline__ std::int64_t place_of(const cuda::Geometry& g, const QueryTile& tile,
                                                 int row) {
  return tile.place >= 0 ? tile.place + row : cuda::token_of_row(g, tile.row + row);
}

/// The maximum that a row's state stands for: all that it has seen is one probability of 1.
__device__ __forceinline__ float max_of_state(float lse, float scale) {
  return lse / __fmul_rn(scale, cuda::kLn2);
}

/// Sums continue from lse, or start with nothing.
__device__ __forceinline__ void begin_sums(const cuda::Geometry& g, const ForwardParams& p,
                                           const Item& item, const Lane& at, float scale,
                                           RowSums& sums) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    sums.max[h] = -cuda::kInfinity;
    sums.sum[h] = 0.0F;
    if (!p.resume || at.row(h) >= item.tile.rows) continue;
    const std::int64_t token = token_of(g, item.tile, at.row(h));
    const float lse = *cuda::f32_row(p.lse, item.batch, token, item.head);
    if (lse == -cuda::kInfinity) continue;
    sums.max[h] = max_of_state(lse, scale);
    sums.sum[h] = (at.lane() & 3) == 0 ? 1.0F : 0.0F;
  }
}

/// Output that goes on from the state, once the first scores have been seen: by what these made of
/// it. Rows that had seen no key begin with 0, whatever their state is.
template <int kDim>
__device__ __forceinline__ void begin_output(const cuda::Geometry& g, const ForwardParams& p,
                                             const Item& item, const Lane& at, float scale,
                                             const RowSums& sums, float (&o)[kDim / 2]) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) o[4 * j + 2 * h] = o[4 * j + 2 * h + 1] = 0.0F;
    if (at.row(h) >= item.tile.rows) continue;
    const std::int64_t token = token_of(g, item.tile, at.row(h));
    const float lse = *cuda::f32_row(p.lse, item.batch, token, item.head);
    if (lse == -cuda::kInfinity) continue;
    const float keep = kept(max_of_state(lse, scale), sums.max[h], scale);
    const float* state = cuda::f32_row(p.state, item.batch, token, item.head) + 2 * (at.lane() & 3);
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
      const float2 pair = *reinterpret_cast<const float2*>(state + 8 * j);
      o[4 * j + 2 * h] = pair.x * keep;
      o[4 * j + 2 * h + 1] = pair.y * keep;
    }
  }
}

/// What makes the thread's output that of normalised rows: 0 where a row has seen no key.
struct RowFactors {
  float of[2];
};

/// LSE and factors, by row of the item.
__device__ __forceinline__ void finish_sums(const Lane& at, float scale, const RowSums& sums,
                                            float* lse, float* factors) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float total = sums.sum[h];
    total += __shfl_xor_sync(0xffffffffU, total, 1);
    total += __shfl_xor_sync(0xffffffffU, total, 2);
    if ((at.lane() & 3) != 0) continue;
    const bool unseen = total == 0.0F;
    factors[at.row(h)] = unseen ? 0.0F : 1.0F / total;
    // Rounded as said here wherever this is inlined: which item is a block's last is chance.
    const float sum = __fmaf_rn(sums.max[h], __fmul_rn(scale, cuda::kLn2), logf(total));
    lse[at.row(h)] = unseen ? -cuda::kInfinity : sum;
  }
}

/// The output itself stays as it is: registers of products may not be written while others are
/// under way. 0 times what is not finite is no 0.
template <int kDim>
__device__ __forceinline__ void store_state(const cuda::Geometry& g, const ForwardParams& p,
                                            const Item& item, const Lane& at,
                                            const RowFactors& factors, const float (&o)[kDim / 2]) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (at.row(h) >= item.tile.rows) continue;
    const std::int64_t place = place_of(g, item.tile, at.row(h));
    float* state = cuda::f32_row(p.state, item.batch, place, item.head) + 2 * (at.lane() & 3);
    const float factor = factors.of[h];
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
      const float2 pair = make_float2(o[4 * j + 2 * h] * factor, o[4 * j + 2 * h + 1] * factor);
      *reinterpret_cast<float2*>(state + 8 * j) = factor == 0.0F ? make_float2(0.0F, 0.0F) : pair;
    }
  }
}

/// The warp's output to its rows of `to`, where its warpgroup's queries were.
template <typename T, int kDim>
__device__ __forceinline__ void stage_out(const Lane& at, std::uint32_t to,
                                          const RowFactors& factors, const float (&o)[kDim / 2]) {
  // Four matrices of 8 x 8 at once: both halves of the rows of two chunks. This lane says where row
  // lane % 8 of matrix lane / 8 goes.
  const int half = at.lane() >> 3 & 1;
  const int row = at.warp_row() % kGroupRows + (at.lane() & 7) + 8 * half;
  const std::uint32_t seen[2] = {factors.of[0] == 0.0F ? 0U : ~0U,
                                 factors.of[1] == 0.0F ? 0U : ~0U};
#pragma unroll
  for (int j = 0; j < kDim / 8; j += 2) {
    std::uint32_t packs[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float factor = factors.of[i % 2];
      packs[i] = pack(o[4 * j + 2 * i] * factor, o[4 * j + 2 * i + 1] * factor, T()) & seen[i % 2];
    }
    store_matrices(to + place_in_matrix(kGroupRows, row, j + (at.lane() >> 4)), packs);
  }
}

/// Of the packs of four neighbouring lanes: lane i gets number i of each.
__device__ __forceinline__ void transpose_packs(std::uint32_t (&packs)[4], int lane) {
#pragma unroll
  for (int distance = 2; distance > 0; distance /= 2) {
    const bool upper = (lane & distance) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & distance) != 0) continue;
      std::uint32_t& low = packs[i];
      std::uint32_t& high = packs[i + distance];
      const std::uint32_t got = __shfl_xor_sync(0xffffffffU, upper ? low : high, distance);
      (upper ? low : high) = got;
    }
  }
}

/// From registers, where the next item's queries are in shared memory already: of four chunks of a
/// row, each of its four lanes gets one.
template <typename T, int kDim>
__device__ __forceinline__ void store_out_at_once(const cuda::Geometry& g, const ForwardParams& p,
                                                  const Item& item, const Lane& at,
                                                  const RowFactors& factors,
                                                  const float (&o)[kDim / 2]) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const bool real = at.row(h) < item.tile.rows;
    const std::int64_t token = real ? token_of(g, item.tile, at.row(h)) : 0;
    std::uint16_t* const to = element_at(p.out, item.batch, token, item.head) + 8 * (at.lane() & 3);
    const float factor = factors.of[h];
#pragma unroll
    for (int j = 0; j < kDim / 8; j += 4) {
      std::uint32_t packs[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int first = 4 * (j + i) + 2 * h;
        packs[i] = factor == 0.0F ? 0U : pack(o[first] * factor, o[first + 1] * factor, T());
      }
      transpose_packs(packs, at.lane());
      const uint4 piece = make_uint4(packs[0], packs[1], packs[2], packs[3]);
      if (real) *reinterpret_cast<uint4*>(to + 8 * j) = piece;
    }
  }
}

/// Rows of V behind the step's `keys`: these have probability 0, and 0 times what is not finite is
/// no 0. The warpgroup's threads together.
template <int kTileKeys, int kDimV>
__device__ __forceinline__ void clear_values(const Lane& at, unsigned char* values, int keys) {
  constexpr int kChunks = kDimV / 8;
#pragma unroll 1
  for (int i = keys * kChunks + at.thread(); i < kTileKeys * kChunks; i += kGroupThreads) {
    store_shared16(shared_address(values) + place_in_matrix(kTileKeys, i / kChunks, i % kChunks),
                   make_uint4(0, 0, 0, 0));
  }
  fence_async_shared();
  sync_group(at);
}

}  // namespace annulus::attn::sm90
