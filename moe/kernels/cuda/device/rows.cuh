#pragma once

#include "moe/kernels/cuda/device/packs.cuh"
#include "moe/kernels/cuda/launch.h"

#include <cstdint>

// Rows between tokens and experts, a block a token (row): it looks its slots up once, then moves
// pieces of 16 bytes, neighbours by neighbouring threads, so that what goes over a link is whole
// lines. Stores wait for nobody; loads of several blocks are under way at once.
namespace annulus::moe::cuda {

inline constexpr int kRowThreads = 128;

/// Where the rows of a token's slots lie; null: there is none.
struct SlotRows {
  std::byte* at[kMostSlots];
};

__device__ inline std::int32_t rank_of(const std::int32_t* ranks, std::int64_t pair) {
  return ranks != nullptr ? ranks[pair] : 0;
}

__device__ inline bool is_first_of_rank(const ScatterParams& p, std::int64_t token, int slot) {
  const std::int32_t rank = rank_of(p.rank, token * p.k + slot);
  for (std::int64_t pair = token * p.k; pair < token * p.k + slot; ++pair) {
    if (p.place[pair] >= 0 && rank_of(p.rank, pair) == rank) return false;
  }
  return true;
}

/// Thread `slot` looks its slot up, and sends the weight.
__device__ inline std::byte* target_of(const ScatterParams& p, std::int64_t token, int slot) {
  const std::int64_t pair = token * p.k + slot;
  if (p.place[pair] < p.low || p.place[pair] >= p.high) return nullptr;
  const std::int32_t rank = rank_of(p.rank, pair);
  const std::int64_t at = p.first[rank] + p.place[pair];
  const std::int64_t row = p.row != nullptr ? p.row[pair] : at;
  if (p.weights != nullptr) p.weights_to[rank][row] = p.weights[pair];
  if (p.row != nullptr) p.source_of[rank][row] = rank == p.own ? -1 : at;
  if (p.row != nullptr && rank == p.own) return p.own_rows + row * p.bytes;
  if (p.once_a_rank && !is_first_of_rank(p, token, slot)) return nullptr;
  return p.to[rank] + at * p.bytes;
}

template <typename Piece>
__device__ void scatter_token(const ScatterParams& p, SlotRows& shared, std::int64_t token) {
  const auto thread = static_cast<int>(threadIdx.x);
  __syncthreads();  // the slots of the token before
  if (thread < p.k) shared.at[thread] = target_of(p, token, thread);
  __syncthreads();
  const auto* from = reinterpret_cast<const Piece*>(p.from + token * p.from_stride);
  const std::int64_t pieces = p.bytes / static_cast<std::int64_t>(sizeof(Piece));
  for (std::int64_t i = thread; i < pieces; i += kRowThreads) {
    const Piece piece = from[i];
    for (int slot = 0; slot < p.k; ++slot) {
      std::byte* to = shared.at[slot];
      if (to != nullptr) reinterpret_cast<Piece*>(to)[i] = piece;
    }
  }
}

template <typename Piece>
__device__ void copy_row(const CopyParams& p, std::int64_t row) {
  const std::int64_t source = p.from_at != nullptr ? p.from_at[row] : row;
  const std::int64_t target = p.to_at != nullptr ? p.to_at[row] : row;
  if (source < 0 || target < 0) return;
  const auto* from = reinterpret_cast<const Piece*>(static_cast<const std::byte*>(p.from) +
                                                    source * p.from_stride);
  auto* to = reinterpret_cast<Piece*>(static_cast<std::byte*>(p.to) + target * p.to_stride);
  const std::int64_t pieces = p.bytes / static_cast<std::int64_t>(sizeof(Piece));
  for (std::int64_t i = static_cast<int>(threadIdx.x); i < pieces; i += kRowThreads) {
    to[i] = from[i];
  }
}

/// Short rows, a thread a piece of 4 bytes: piece i of all.
__device__ inline void copy_piece(const CopyParams& p, std::int64_t i) {
  const std::int64_t pieces = p.bytes / 4;
  const std::int64_t row = i / pieces;
  const std::int64_t source = p.from_at != nullptr ? p.from_at[row] : row;
  const std::int64_t target = p.to_at != nullptr ? p.to_at[row] : row;
  if (source < 0 || target < 0) return;
  const std::int64_t piece = i % pieces * 4;
  const auto* from = static_cast<const std::byte*>(p.from) + source * p.from_stride + piece;
  auto* to = static_cast<std::byte*>(p.to) + target * p.to_stride + piece;
  *reinterpret_cast<std::uint32_t*>(to) = *reinterpret_cast<const std::uint32_t*>(from);
}

/// A slot's row, to be read.
__device__ inline std::byte* source_of(const CombineParams& p, std::int64_t pair,
                                       std::int64_t row_bytes) {
  const std::int64_t row = p.sum.at[pair];
  if (row < 0) return nullptr;
  const std::byte* rows = p.rows[rank_of(p.rank, pair)];
  return const_cast<std::byte*>(rows) + row * row_bytes;
}

__device__ inline void pull_value(const PullParams& p, std::int64_t pair) {
  const std::int64_t place = p.place[pair];
  if (place >= 0 && (place < p.low || place >= p.high)) return;
  p.to[pair] = place < 0 ? 0.0F : p.from[rank_of(p.rank, pair)][place - p.low];
}

/// A slot's row in this round; null: none.
__device__ inline std::byte* round_row(const FetchParams& p, std::int64_t pair) {
  const std::int64_t place = p.place[pair];
  p.at[pair] = place < 0 ? -1 : pair;
  if (place < p.low || place >= p.high) return nullptr;
  const std::byte* rows = p.from[rank_of(p.rank, pair)];
  return const_cast<std::byte*>(rows) + (place - p.low) * p.bytes;
}

template <typename Piece>
__device__ void fetch_token(const FetchParams& p, SlotRows& shared, std::int64_t token) {
  const auto thread = static_cast<int>(threadIdx.x);
  __syncthreads();  // the slots of the token before
  if (thread < p.k) shared.at[thread] = round_row(p, token * p.k + thread);
  __syncthreads();
  std::byte* to = p.to + token * p.k * p.bytes;
  const std::int64_t pieces = p.bytes / static_cast<std::int64_t>(sizeof(Piece));
  for (std::int64_t i = thread; i < pieces; i += kRowThreads) {
#pragma unroll 4
    for (int slot = 0; slot < p.k; ++slot) {
      const auto* from = reinterpret_cast<const Piece*>(shared.at[slot]);
      if (from != nullptr) reinterpret_cast<Piece*>(to + slot * p.bytes)[i] = from[i];
    }
  }
}

/// Sums in the order of slots, then `more`, rounded once.
template <typename T, int kWidth>
__device__ void sum_token(const CombineParams& p, SlotRows& shared, std::int64_t token) {
  const SumParams& s = p.sum;
  const auto thread = static_cast<int>(threadIdx.x);
  __syncthreads();
  if (thread < s.k) {
    shared.at[thread] =
        source_of(p, token * s.k + thread, s.width * static_cast<std::int64_t>(sizeof(T)));
  }
  __syncthreads();
  T* out = static_cast<T*>(s.out) + token * s.out_stride;
  for (std::int64_t i = thread; i < s.width / kWidth; i += kRowThreads) {
    Floats<kWidth> sum{};
#pragma unroll 4
    for (int slot = 0; slot < s.k; ++slot) {
      const std::byte* row = shared.at[slot];
      if (row == nullptr) continue;
      const auto term = load_pack<T, kWidth>(reinterpret_cast<const T*>(row), i);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) sum.v[j] += term.v[j];
    }
    if (s.more != nullptr) {
      const float* more = s.more + token * s.width + i * kWidth;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) sum.v[j] += more[j];
    }
    store_pack<T, kWidth>(out, i, sum);
  }
}

}  // namespace annulus::moe::cuda
