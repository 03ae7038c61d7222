#pragma once

#include "attention/kernels/sm90/layout.cuh"
#include "attention/kernels/sm90/maps.h"
#include "attention/kernels/sm90/ptx.cuh"
#include "attention/kernels/sm90/schedule.cuh"

#include <cstdint>

// What the warps of a block share, and who waits for whom.
namespace annulus::attn::sm90 {

inline constexpr int kTileRows = 128;  ///< query rows of an item, at most
inline constexpr int kTileKeys = 128;  ///< keys of a step, at most
inline constexpr int kGroupRows = 64;  ///< of a consumer warpgroup
inline constexpr int kGroups = 2;      ///< consumer warpgroups
inline constexpr int kGroupThreads = 128;
inline constexpr int kThreads = (1 + kGroups) * kGroupThreads;
inline constexpr int kConsumerWarps = kGroups * 4;

/// Keys that meet a query tile: one tile of the list.
struct Step {
  std::int64_t position;  ///< of the first key
  std::int64_t stride;    ///< between positions
  std::int32_t keys;      ///< kAborted: the launch ends here
  std::int32_t rows;      ///< of the query tile that it reaches
  std::int32_t full;      ///< no pair of it is masked
  std::int32_t masked;    ///< some of kTileRows x kTileKeys is not to be seen
};
inline constexpr int kAborted = -1;

template <int kDim>
struct Shared {
  static constexpr int kStages = 256 / kDim;  ///< of K, and of V
  static constexpr int kSteps = 8;            ///< > kStages: a step outlives its K
  static constexpr int kItems = 4;            ///< this one, the next, and those ahead
  static constexpr int kQueryBytes = kGroupRows * kDim * 2;
  static constexpr int kKeyBytes = kTileKeys * kDim * 2;

  unsigned char q[2][kGroups][kQueryBytes];  ///< of this item and the next
  unsigned char k[kStages][kKeyBytes];
  unsigned char v[kStages][kKeyBytes];
  Step steps[kSteps];
  Item items[kItems];
  // Full: what the loader said or copied is there. Empty: every consumer warp is done with it.
  std::uint64_t k_full[kStages], k_empty[kStages];
  std::uint64_t v_full[kStages], v_empty[kStages];
  std::uint64_t item_full[kItems], item_empty[kItems];
};

/// Where thing `n` (0, 1, ...) of a ring of kCount lies, and the parity of the phases in which it
/// becomes full, and in which its predecessor there becomes empty.
template <int kCount>
struct Place {
  int index;
  std::uint32_t full, empty;
  __device__ __forceinline__ explicit Place(int n)
      : index(n % kCount), full(static_cast<std::uint32_t>(n / kCount) & 1U), empty(full ^ 1U) {}
};

// Named barriers; 0 is __syncthreads.
inline constexpr int kTurnBarrier = 1;             ///< + warpgroup: its turn to start products
inline constexpr int kGroupBarrier = 1 + kGroups;  ///< + warpgroup: its own threads

/// One thread, before all others use them.
template <int kDim>
__device__ inline void init_barriers(Shared<kDim>& s) {
  for (int i = 0; i < Shared<kDim>::kStages; ++i) {
    init_barrier(&s.k_full[i], 1);
    init_barrier(&s.v_full[i], 1);
    init_barrier(&s.k_empty[i], kConsumerWarps);
    init_barrier(&s.v_empty[i], kConsumerWarps);
  }
  for (int i = 0; i < Shared<kDim>::kItems; ++i) {
    init_barrier(&s.item_full[i], 1);
    init_barrier(&s.item_empty[i], kConsumerWarps);
  }
  fence_barrier_init();
}

}  // namespace annulus::attn::sm90
