#pragma once

#include "moe/kernels/cuda/device/warp.cuh"
#include "moe/kernels/cuda/launch.h"

#include <cstdint>

// Placement (moe/placement.cpp). A block has kTokensPerBlock tokens, a warp 32 neighbours of them.
// Pairs are counted by block and scanned over blocks; a block counts its warps' pairs and scans
// those; a warp ranks 32 pairs at a time by who has the same expert. Atomics only count, where the
// order of additions shows in nothing.
namespace annulus::moe::cuda {

inline constexpr int kPlaceWarps = static_cast<int>(kTokensPerBlock) / kWarp;
inline constexpr int kPlaceThreads = static_cast<int>(kTokensPerBlock);
inline constexpr int kMostColumns = static_cast<int>(kMostExperts + kMostRanks);

struct PlaceShared {
  std::int32_t rows[kMostExperts];               ///< of an expert, all sources
  std::int32_t first[kMostExperts];              ///< this source's first
  std::int32_t next[kPlaceWarps][kMostColumns];  ///< counts, then the next place
  std::int32_t unique_first[kMostRanks + 1];
  std::uint32_t holders[kPlaceWarps][kMostRanks];  ///< lanes whose tokens go to a rank
};

// PlaceParams has the same for the host.
__device__ inline int blocks_of(const PlaceParams& p) {
  return (p.tokens + kPlaceThreads - 1) / kPlaceThreads;
}
__device__ inline int columns_of(const PlaceParams& p) { return p.experts + p.ranks; }

__device__ inline std::int32_t expert_of(const PlaceParams& p, std::int64_t pair) {
  const std::int32_t e = p.indices[pair];
  return e >= 0 && e < p.experts ? e : -1;
}

/// Offsets of a column over blocks lie together; after all columns, the totals of ranks.
__device__ inline std::int32_t* offset_of(const PlaceParams& p, int column, int block) {
  return p.room + static_cast<std::int64_t>(column) * blocks_of(p) + block;
}
__device__ inline std::int32_t* rank_total(const PlaceParams& p, int rank) {
  return p.room + static_cast<std::int64_t>(columns_of(p)) * blocks_of(p) + rank;
}

/// work(slot, expert) for a token's slots; expert -1: none. Several loads are under way before the
/// first work, which may store.
template <typename Work>
__device__ inline void each_slot(const PlaceParams& p, std::int64_t token, const Work& work) {
  constexpr int kAtOnce = 8;
  if (token >= p.tokens) return;
  for (int first = 0; first < p.k; first += kAtOnce) {
    std::int32_t expert[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      expert[i] = first + i < p.k ? expert_of(p, token * p.k + first + i) : -1;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i < p.k) work(first + i, expert[i]);
    }
  }
}

/// Adds this warp's tokens to `counts`: pairs by expert, tokens by rank. `holders`, unless null:
/// for each rank the lanes whose tokens go there.
__device__ inline void count_warp(const PlaceParams& p, std::int64_t token, std::int32_t* counts,
                                  std::uint32_t* holders) {
  const std::int32_t local = p.experts / p.ranks;
  std::uint64_t ranks = 0;
  each_slot(p, token, [&](int /*slot*/, std::int32_t e) {
    if (e < 0) return;
    atomicAdd(&counts[e], 1);
    ranks |= std::uint64_t{1} << (e / local);
  });
  __syncwarp();
  for (int r = 0; r < p.ranks; ++r) {
    const unsigned lanes = __ballot_sync(kAllLanes, (ranks >> r & 1U) != 0);
    if (lane_id() != 0) continue;
    if (holders != nullptr) holders[r] = lanes;
    if (lanes != 0) atomicAdd(&counts[p.experts + r], __popc(lanes));
  }
}

/// First kernel. `shared` has columns_of(p) values.
__device__ inline void count_block(const PlaceParams& p, std::int32_t* shared, int block) {
  const auto thread = static_cast<int>(threadIdx.x);
  for (int c = thread; c < columns_of(p); c += kPlaceThreads) shared[c] = 0;
  __syncthreads();
  count_warp(p, std::int64_t{block} * kTokensPerBlock + thread, shared, nullptr);
  __syncthreads();
  for (int c = thread; c < columns_of(p); c += kPlaceThreads) *offset_of(p, c, block) = shared[c];
}

/// Second kernel, one warp a column: counts of blocks become offsets.
__device__ inline void scan_column(const PlaceParams& p, int column) {
  const int blocks = blocks_of(p);
  std::int32_t before = 0;
  for (int begin = 0; begin < blocks; begin += kWarp) {
    const int block = begin + lane_id();
    const std::int32_t count = block < blocks ? *offset_of(p, column, block) : 0;
    const std::int32_t through = scan_lanes(count);
    if (block < blocks) *offset_of(p, column, block) = before + through - count;
    before += __shfl_sync(kAllLanes, through, kWarp - 1);
  }
  if (lane_id() != 0) return;
  if (column < p.experts) {
    p.counts[column] = before;
  } else {
    *rank_total(p, column - p.experts) = before;
    if (p.rank_tokens != nullptr) p.rank_tokens[column - p.experts] = before;
  }
}

/// Rows of each expert over all sources, and in `first` those of earlier sources.
__device__ inline void sum_sources(const PlaceParams& p, PlaceShared& shared) {
  for (int e = static_cast<int>(threadIdx.x); e < p.experts; e += kPlaceThreads) {
    std::int64_t rows = 0;
    std::int64_t earlier = 0;
    for (int s = 0; s < p.sources; ++s) {
      const std::int64_t count = p.matrix[std::int64_t{s} * p.experts + e];
      rows += count;
      if (s < p.source) earlier += count;
    }
    shared.rows[e] = static_cast<std::int32_t>(rows);
    shared.first[e] = static_cast<std::int32_t>(earlier);
    const bool given = p.matrix[std::int64_t{p.source} * p.experts + e] == p.counts[e];
    if (!given && p.mismatch != nullptr) *p.mismatch = 1;
  }
}

/// A warp lays out one rank's experts.
__device__ inline void lay_out_rank(const PlaceParams& p, PlaceShared& shared, int rank,
                                    bool writes) {
  const int local = p.experts / p.ranks;
  std::int32_t before = 0;
  for (int begin = 0; begin < local; begin += kWarp) {
    const int e = rank * local + begin + lane_id();
    const bool real = begin + lane_id() < local;
    const std::int32_t rows = real ? shared.rows[e] : 0;
    const std::int32_t aligned = (rows + p.alignment - 1) / p.alignment * p.alignment;
    const std::int32_t through = scan_lanes(aligned);
    const std::int32_t first = before + through - aligned;
    if (real) shared.first[e] += first;
    if (real && writes) p.expert_first[e] = first;
    if (real && writes) p.expert_rows[e] = rows;
    before += __shfl_sync(kAllLanes, through, kWarp - 1);
  }
  if (writes && lane_id() == 0) p.rank_rows[rank] = before;
}

__device__ inline void lay_out_unique(const PlaceParams& p, PlaceShared& shared, bool writes) {
  for (int r = static_cast<int>(threadIdx.x); r <= p.ranks; r += kPlaceThreads) {
    std::int32_t first = 0;
    for (int earlier = 0; earlier < r; ++earlier) first += *rank_total(p, earlier);
    shared.unique_first[r] = first;
    if (writes) p.unique_first[r] = first;
  }
}

/// Counts of warps become the places that their first pairs (tokens) take.
__device__ inline void scan_warps(const PlaceParams& p, PlaceShared& shared, int block) {
  for (int c = static_cast<int>(threadIdx.x); c < columns_of(p); c += kPlaceThreads) {
    std::int32_t place = *offset_of(p, c, block);
    if (c < p.experts) place += shared.first[c];
    for (int w = 0; w < kPlaceWarps; ++w) {
      const std::int32_t count = shared.next[w][c];
      shared.next[w][c] = place;
      place += count;
    }
  }
}

/// 32 pairs at a time, in order.
__device__ inline void place_rows(const PlaceParams& p, std::int32_t* next, std::int64_t token) {
  const std::int32_t local = p.experts / p.ranks;
  const std::int64_t end = (token + kWarp < p.tokens ? token + kWarp : p.tokens) * p.k;
  for (std::int64_t begin = token * p.k; begin < end; begin += kWarp) {
    const std::int64_t pair = begin + lane_id();
    const std::int32_t e = pair < end ? expert_of(p, pair) : -1;
    const unsigned same = __match_any_sync(kAllLanes, e);
    const unsigned earlier = same & lower_lanes();
    const std::int32_t row = e >= 0 ? next[e] + __popc(earlier) : -1;
    __syncwarp();
    if (e >= 0 && earlier == 0) next[e] += __popc(same);
    __syncwarp();
    if (pair < end) p.rank[pair] = e >= 0 ? e / local : -1;
    if (pair < end) p.row[pair] = row;
  }
}

/// Each token once for each of its ranks.
__device__ inline void place_tokens(const PlaceParams& p, const PlaceShared& shared,
                                    const std::int32_t* next, const std::uint32_t* holders,
                                    std::int64_t token) {
  const std::int32_t local = p.experts / p.ranks;
  std::uint64_t seen = 0;
  each_slot(p, token, [&](int slot, std::int32_t e) {
    const std::int64_t pair = token * p.k + slot;
    if (e < 0) {
      p.unique_of[pair] = -1;
      return;
    }
    const int r = e / local;
    const std::int32_t place = next[r] + __popc(holders[r] & lower_lanes());
    p.unique_of[pair] = place;
    const std::uint64_t bit = std::uint64_t{1} << r;
    if ((seen & bit) == 0) p.unique_tokens[shared.unique_first[r] + place] = token;
    seen |= bit;
  });
}

/// Third kernel.
__device__ inline void place_block(const PlaceParams& p, PlaceShared& shared, int block) {
  const auto thread = static_cast<int>(threadIdx.x);
  std::int32_t* next = shared.next[warp_id()];
  for (int c = lane_id(); c < columns_of(p); c += kWarp) next[c] = 0;
  sum_sources(p, shared);
  lay_out_unique(p, shared, block == 0);
  __syncthreads();
  std::uint32_t* holders = shared.holders[warp_id()];
  count_warp(p, std::int64_t{block} * kTokensPerBlock + thread, next, holders);
  for (int r = warp_id(); r < p.ranks; r += kPlaceWarps) lay_out_rank(p, shared, r, block == 0);
  __syncthreads();
  scan_warps(p, shared, block);
  __syncthreads();
  const std::int64_t token = std::int64_t{block} * kTokensPerBlock + warp_id() * kWarp;
  place_rows(p, next, token);
  place_tokens(p, shared, next + p.experts, holders, token + lane_id());
}

}  // namespace annulus::moe::cuda
