#pragma once

#include "attention/kernels/sm90/forward_phases.h"
#include "attention/kernels/sm90/layout.cuh"
#include "attention/kernels/sm90/maps.h"
#include "attention/kernels/sm90/ptx.cuh"
#include "attention/kernels/sm90/schedule.cuh"
#include "attention/kernels/sm90/trace.cuh"
#include "attention/kernels/sm90/tuning.h"

#include <cstdint>

// What the warps of a block share, and who waits for whom.
namespace annulus::attn::sm90 {

inline constexpr int kGroupRows = 64;  ///< query rows of a consumer warpgroup
inline constexpr int kGroupThreads = 128;
inline constexpr int kMostGroups = 3;  ///< consumer warpgroups
inline constexpr int kPorters = 3;     ///< warps beside the loader's

/// Keys that meet a query tile: one tile of the list.
struct Step {
  std::int64_t position;  ///< of the first key
  std::int64_t stride;    ///< between positions
  std::int32_t keys;      ///< kAborted: the launch ends here
  std::int32_t rows;      ///< of the query tile that it reaches
  std::int32_t full;      ///< no pair of it is masked
  std::int32_t masked;    ///< some of the block's rows x a step's keys is not to be seen
  // The loader's: where V is, which it asks for later.
  std::int32_t token, kv_head, batch, source;
};
inline constexpr int kAborted = -1;

template <int kDim, int kDimV, Tuning kTuning>
struct Shared {
  static constexpr int kGroups = kTuning.groups;
  static constexpr int kTileKeys = kTuning.tile_keys;
  static constexpr int kStages = kTuning.stages;  ///< of K, and of V
  static constexpr int kSteps = 8;                ///< > kStages: a step outlives its K
  static constexpr int kItems = 6;                ///< being carried away, this one, those ahead
  static constexpr int kQueries = kTuning.query_buffers;
  static constexpr int kOuts = kQueries > 2 ? kQueries : 2;  ///< places of what porters carry
  static constexpr int kQueryBytes = kGroupRows * kBlocksOf<kDim> * kRowBytes;
  static constexpr int kKeyBytes = kTileKeys * kBlocksOf<kDim> * kRowBytes;
  static constexpr int kValueBytes = kTileKeys * kBlocksOf<kDimV> * kRowBytes;
  static_assert(kGroupRows * kMostGroups == kMostTileRows && kGroups <= kMostGroups &&
                kStages < kSteps && registers_suit(kTuning));
  static_assert(kTileKeys % 16 == 0, "a step of P V is 16 keys");
  static_assert(kDim % 32 == 0 && kDimV % 32 == 0);
  static_assert(kQueries == 1 || kDim == kDimV, "output goes through Q");

  unsigned char q[kQueries][kGroups][kQueryBytes];  ///< of this item and those ahead; then output
  unsigned char k[kStages][kKeyBytes];
  unsigned char v[kStages][kValueBytes];
  float lse[kOuts][kGroups * kGroupRows];
  float factors[kGroups * kGroupRows];  ///< of an item's output, by row: consumers' own
  Step steps[kSteps];
  Item items[kItems];
  // Full: what the loader said or copied is there; of items: what porters brought, or consumers
  // left. Empty: every consumer warp is done with it, of what an item is porters as well.
  std::uint64_t k_full[kStages], k_empty[kStages];
  std::uint64_t v_full[kStages], v_empty[kStages];
  std::uint64_t item_full[kItems], item_empty[kItems];
  std::uint64_t q_full[kQueries], out_full[kOuts];
  std::uint64_t q_empty;  ///< the only queries may be overwritten (kQueries = 1)
  std::uint32_t aborted;  ///< no output comes any more
  /// Some warp's maxima of the step do not stay, by stage of its K (Tuning::late_maxima).
  std::uint32_t grown[kGroups][kStages];
  // The loader's own, of whose registers there are few.
  std::int64_t pairs;       ///< rows times keys so far
  std::int32_t segment;     ///< of the last step
  std::int32_t walked;      ///< the item whose steps it asks for
  std::int32_t said;        ///< the last item that was said
  std::int32_t said_steps;  ///< of all items until then
  Trace<kTuning.traced ? kForwardPhases : 1> trace;
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
inline constexpr int kTurnBarrier = 1;                 ///< + warpgroup: its turn
inline constexpr int kGroupBarrier = 1 + kMostGroups;  ///< + warpgroup: its own threads

/// One thread, before all others use them.
template <int kDim, int kDimV, Tuning kTuning>
__device__ inline void init_barriers(Shared<kDim, kDimV, kTuning>& s) {
  constexpr int kConsumerWarps = 4 * kTuning.groups;
  for (int i = 0; i < kTuning.stages; ++i) {
    init_barrier(&s.k_full[i], 1);
    init_barrier(&s.v_full[i], 1);
    init_barrier(&s.k_empty[i], kConsumerWarps);
    init_barrier(&s.v_empty[i], kConsumerWarps);
    for (int group = 0; group < s.kGroups; ++group) s.grown[group][i] = 0;
  }
  for (int i = 0; i < s.kItems; ++i) {
    init_barrier(&s.item_full[i], 1);
    init_barrier(&s.item_empty[i], kConsumerWarps + kPorters);
  }
  for (int i = 0; i < s.kQueries; ++i) init_barrier(&s.q_full[i], kPorters);
  for (int i = 0; i < s.kOuts; ++i) init_barrier(&s.out_full[i], kConsumerWarps);
  init_barrier(&s.q_empty, kConsumerWarps);
  s.aborted = 0;
  s.trace = {};
  if constexpr (kTuning.traced) s.trace.last = clock_now();
  fence_barrier_init();
}

}  // namespace annulus::attn::sm90
