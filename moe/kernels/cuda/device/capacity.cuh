#pragma once

#include "moe/kernels/cuda/device/losses.cuh"

#include <cstdint>

// Who stays where an expert overflows (moe/capacity.cpp). A block an expert: it lists the expert's
// pairs in token order, finds the smallest weight that stays a byte at a time, and drops the rest;
// of equal weights the later ones. Blocks touch different pairs.
namespace annulus::moe::cuda {

inline constexpr int kDropThreads = 256;
inline constexpr int kDropWarps = kDropThreads / kWarp;

struct DropShared {
  std::int32_t warps[kDropWarps];
  std::int32_t digits[256];
  std::uint32_t key;   ///< the bytes of the smallest weight that stays, so far
  std::int32_t stays;  ///< of those that have these bytes
};

/// Numbers the threads that hold, in order, from `before` on; `before` becomes their end.
__device__ inline std::int32_t number(DropShared& s, bool holds, std::int32_t& before) {
  const unsigned lanes = __ballot_sync(kAllLanes, holds);
  __syncthreads();  // numbers of the call before were read
  if (lane_id() == 0) s.warps[warp_id()] = __popc(lanes);
  __syncthreads();
  std::int32_t mine = before + __popc(lanes & lower_lanes());
  for (int w = 0; w < kDropWarps; ++w) {
    if (w < warp_id()) mine += s.warps[w];
    before += s.warps[w];
  }
  return mine;
}

__device__ inline std::int32_t pair_with(const DropParams& p, std::int64_t token, int expert) {
  if (token >= p.tokens) return -1;
  for (std::int64_t pair = token * p.k; pair < (token + 1) * p.k; ++pair) {
    if (p.indices[pair] == expert) return static_cast<std::int32_t>(pair);
  }
  return -1;
}

/// The expert's pairs by token; returns how many.
__device__ inline std::int32_t list_pairs(const DropParams& p, DropShared& s, int expert,
                                          std::int32_t* list) {
  std::int32_t pairs = 0;
  for (std::int64_t first = 0; first < p.tokens; first += kDropThreads) {
    const std::int32_t pair = pair_with(p, first + static_cast<int>(threadIdx.x), expert);
    const std::int32_t at = number(s, pair >= 0, pairs);
    if (pair >= 0) list[at] = pair;
  }
  __syncthreads();
  return pairs;
}

/// One more byte of the smallest key that stays: counts by byte, then from the largest down.
__device__ inline void narrow(const DropParams& p, DropShared& s, const std::int32_t* list,
                              std::int32_t pairs, int shift) {
  const auto thread = static_cast<int>(threadIdx.x);
  __syncthreads();  // thread 0 has read the counts of the byte before
  s.digits[thread] = 0;
  __syncthreads();
  const std::uint32_t above = s.key;
  for (std::int32_t i = thread; i < pairs; i += kDropThreads) {
    const std::uint32_t key = key_of(p.weights[list[i]]);
    const bool same = shift == 24 || key >> (shift + 8) == above >> (shift + 8);
    if (same) atomicAdd(&s.digits[key >> shift & 255U], 1);
  }
  __syncthreads();
  if (thread != 0) return;
  int digit = 255;
  while (s.digits[digit] < s.stays) s.stays -= s.digits[digit--];
  s.key = above | static_cast<std::uint32_t>(digit) << shift;
}

__device__ inline void drop_at(const DropParams& p, std::int32_t pair) {
  p.kept[pair] = -1;
  p.kept_weights[pair] = 0.0F;
}

__device__ inline void drop_of_expert(const DropParams& p, DropShared& s, int expert) {
  const auto thread = static_cast<int>(threadIdx.x);
  std::int32_t* list = p.room + expert * p.tokens;
  const std::int32_t pairs = list_pairs(p, s, expert, list);
  if (pairs <= p.most) return;
  if (thread == 0) count(p.dropped, static_cast<unsigned>(pairs - p.most));
  const bool by_weight = p.policy == DropPolicy::probability && p.most > 0;
  if (!by_weight) {
    for (auto i = static_cast<std::int32_t>(p.most) + thread; i < pairs; i += kDropThreads) {
      drop_at(p, list[i]);
    }
    return;
  }
  if (thread == 0) s.key = 0;
  if (thread == 0) s.stays = static_cast<std::int32_t>(p.most);
  for (int shift = 24; shift >= 0; shift -= 8) narrow(p, s, list, pairs, shift);
  __syncthreads();
  std::int32_t equal = 0;
  for (std::int32_t first = 0; first < pairs; first += kDropThreads) {
    const std::int32_t i = first + thread;
    const std::uint32_t key = i < pairs ? key_of(p.weights[list[i]]) : ~0U;
    const bool ties = i < pairs && key == s.key;
    const std::int32_t before = number(s, ties, equal);
    if (key < s.key || (ties && before >= s.stays)) drop_at(p, list[i]);
  }
}

}  // namespace annulus::moe::cuda
