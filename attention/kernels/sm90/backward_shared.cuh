#pragma once

#include "attention/kernels/sm90/backward_phases.h"
#include "attention/kernels/sm90/backward_tuning.h"
#include "attention/kernels/sm90/layout.cuh"
#include "attention/kernels/sm90/maps.h"
#include "attention/kernels/sm90/row_walk.cuh"
#include "attention/kernels/sm90/shared.cuh"
#include "attention/kernels/sm90/trace.cuh"
#include "attention/kernels/sm90/variant.h"

#include <cstdint>

// What the warps of a backward block share, and who waits for whom.
namespace annulus::attn::sm90 {

inline constexpr int kTileRows = 128;  ///< query rows of a tile, at most
/// Steps whose description is kept: consumers are done with one when its stage is given back, and
/// the adder has taken those before the last that they have left dQ of.
inline constexpr int kSaid = 4;

/// Query rows that meet the block's key tile: a part of one tile of the list by key, of one head.
struct QueryStep {
  int* counter;       ///< of the part's turns
  std::int32_t turn;  ///< when it is this block's
  /// Counters from `counter` on that the step passes on; 0: more steps follow.
  std::int16_t passes;
  std::int16_t rows;                ///< 0: the launch ends here
  std::int16_t masked;              ///< some of kRows x kKeys is not to be seen
  std::int16_t last;                ///< of the item
  std::int32_t token, head, batch;  ///< of the first row
};

/// Where the gradients of an item go.
struct KeyRows {
  std::int64_t dk, dv;  ///< element 0 of the first key: the loader has no register for its address
  std::int32_t keys, kv_head;
};

/// Where the number of a step's row lies. In steps of 64 rows those of a thread's columns j and
/// j + 1 (wgmma.cuh), rows 8 j + 2 c + e, stand together, so that 16 bytes are read at once.
template <int kRows>
__device__ __forceinline__ int place_of_number(int row) {
  if constexpr (kRows > 64) return row;
  return row / 16 * 16 + row % 8 / 2 * 4 + row / 8 % 2 * 2 + row % 2;
}

template <int kHeadDim, int kHeadDimV, BackwardTuning kTuned>
struct BackwardShared {
  static constexpr int kDim = kHeadDim;
  static constexpr int kDimV = kHeadDimV;
  static constexpr BackwardTuning kTuning = kTuned;
  static constexpr int kRows = backward_rows(kDim);  ///< query rows of a step, at most
  static constexpr int kKeys = backward_keys(kDim);  ///< of an item, at most
  static constexpr bool kTurned = kDim == 192;       ///< backward_turned.cuh
  static constexpr bool kWide = kDim > 192;          ///< backward_wide.cuh
  static constexpr int kGroups = kTurned ? 3 : 2;    ///< consumer warpgroups
  static constexpr int kThreads = (1 + kGroups) * kGroupThreads;
  static constexpr int kConsumerWarps = kGroups * 4;
  static constexpr int kConsumers = kGroups * kGroupThreads;
  static constexpr int kParts = kWide ? kGroups : 1;
  using Across = Columns<kDim, kParts>;  ///< of q, k
  using AcrossV = Columns<kDimV, kParts>;
  static constexpr int kStages = kTuning.stages;
  static constexpr int kDoutStages = kTuning.dout_stages;
  /// dO of a step has its place when that of the step before is done with.
  static constexpr bool kLateDout = kDoutStages < kStages;
  /// dQ is a step behind, so that no warpgroup waits for the other's dS: that takes a third dS. Not
  /// with steps of 128 rows: there is no room for it, nor are there registers.
  static constexpr bool kApart = kDim <= 128 && kRows == kBoxRows;
  /// Buffers of dS, or of P and dS in turn.
  static constexpr int kScores = kWide ? 4 : kApart ? 3 : 2;
  static constexpr int kScoreBytes = kRows * kBlocksOf<kKeys> * kRowBytes;
  // dQ on its way: of each warpgroup two boxes of 32 columns and kBoxRows rows, a round or two.
  static constexpr int kRounds = kWide ? (Across::kPart + 63) / 64 : 1;
  static constexpr int kBoxBytes = kBoxRows * kRowBytes;
  static_assert(kDim % 32 == 0 && kDimV % 32 == 0 && (kDim > 128 || kDim == kDimV));

  unsigned char k[kKeys * Across::kBlocks * kRowBytes];
  unsigned char v[kKeys * AcrossV::kBlocks * kRowBytes];
  unsigned char q[kStages][kRows * Across::kBlocks * kRowBytes];
  unsigned char dout[kDoutStages][kRows * AcrossV::kBlocks * kRowBytes];
  unsigned char ds[kScores][kScoreBytes];    ///< [row][key]; turned: P, dS; wide: both, [key][row]
  unsigned char dq[kGroups][2 * kBoxBytes];  ///< with the 128-byte swizzle
  // Of rows as place_of_number says; 16-byte aligned.
  float lse[kStages][kRows];  ///< times log2(e); +inf where P is to be 0
  float delta[kStages][kRows];
  /// Bit i of seen[.][w][r]: row r sees key 16 w + i. Of masked steps alone.
  std::uint16_t seen[kStages][kKeys / 16][kRows];
  QueryStep steps[kSaid];  ///< the adder reads one when Q of the step is gone
  KeyRows items[2];
  // The loader's own, of whose registers there are few.
  using Walk = RowWalk<(kDim > 128)>;
  alignas(kDim > 128 ? 4 : 16) Walk walk;  // read at once
  RowStep planned;       ///< beside wide consumers, and while its rows are awaited
  std::int32_t counted;  ///< index of the last query segment whose counter was read
  std::uint32_t held;    ///< by that counter
  std::int64_t pairs;
  const KeyMaps* key_maps;      ///< all: found from the kernel's parameters it takes two registers
  std::int32_t index;           ///< of the item that was drawn, among all
  std::uint16_t taken, blocks;  ///< items before it, which may run over; of the launch
  std::uint16_t aborted;        ///< a wait for a turn was
  std::uint16_t ended;          ///< where turns count: no step follows, an adder tells the other
  Trace<kPhases> trace;         // here no room is lost: head dim 192 has none
  // Full: what the loader copied or said is there; that of Q covers all but late dO, which alone
  // has barriers of its own. Empty: every consumer warp is done with it.
  std::uint64_t k_full, v_full, keys_empty;
  std::uint64_t q_full[kStages], dout_full[kDoutStages], empty[kStages], dout_empty[kDoutStages];
  std::uint64_t dq_full[kGroups], dq_empty[kGroups];
  std::uint64_t adder_free[2];  ///< where turns count: the step before is left to the copy engine
  std::uint64_t ds_full[kApart ? kScores : 1], ds_empty[kApart ? kScores : 1];  ///< if apart
};

/// Of the loader's warpgroup: an adder for each consumer warpgroup or, where turns count, for every
/// other step.
inline constexpr int kAdderWarp = 1;

// Named barriers of all consumers; 0 is __syncthreads.
inline constexpr int kScoresBarrier = 1;  ///< wide: P and dS are there; all: an item is stored
inline constexpr int kTailBarrier = 2;    ///< what lies behind a tile was cleared
inline constexpr int kRoomBarrier = 3;    ///< turned: P and dS of the step before are read

/// One thread, before all others use them.
template <typename Memory>
__device__ inline void init_backward(Memory& s) {
  init_barrier(&s.k_full, 1);
  init_barrier(&s.v_full, 1);
  init_barrier(&s.keys_empty, Memory::kConsumerWarps);
  for (int i = 0; i < s.kStages; ++i) {
    init_barrier(&s.q_full[i], Memory::kLateDout ? 2 : 3);  // copies, and the rows' numbers
    init_barrier(&s.empty[i], Memory::kConsumerWarps);
  }
  for (int i = 0; Memory::kLateDout && i < s.kDoutStages; ++i) {
    init_barrier(&s.dout_full[i], 1);
    init_barrier(&s.dout_empty[i], Memory::kConsumerWarps);
  }
  for (int i = 0; i < Memory::kGroups; ++i) {
    init_barrier(&s.dq_full[i], 4);
    init_barrier(&s.dq_empty[i], 1);
  }
  for (int i = 0; Memory::kApart && i < s.kScores; ++i) {
    init_barrier(&s.ds_full[i], Memory::kConsumerWarps);
    init_barrier(&s.ds_empty[i], Memory::kConsumerWarps);
  }
  for (int i = 0; i < 2; ++i) init_barrier(&s.adder_free[i], 1);
  s.trace = {};
  s.aborted = 0;
  s.ended = 0;
  fence_barrier_init();
}

}  // namespace annulus::attn::sm90
