#pragma once

#include "attention/kernels/cuda/device/query_steps.cuh"
#include "attention/kernels/sm90/backward_phases.h"
#include "attention/kernels/sm90/backward_tuning.h"
#include "attention/kernels/sm90/layout.cuh"
#include "attention/kernels/sm90/maps.h"
#include "attention/kernels/sm90/shared.cuh"
#include "attention/kernels/sm90/trace.cuh"
#include "attention/kernels/sm90/variant.h"

#include <cstdint>

// What the warps of a backward block share, and who waits for whom.
namespace annulus::attn::sm90 {

inline constexpr int kTileRows = 128;  ///< query rows of a tile, at most
inline constexpr int kGroups = 2;      ///< consumer warpgroups
inline constexpr int kThreads = (1 + kGroups) * kGroupThreads;
inline constexpr int kConsumerWarps = kGroups * 4;
inline constexpr int kConsumers = kGroups * kGroupThreads;

/// Query rows that meet the block's key tile: a part of one tile of the list by key, of one head.
struct QueryStep {
  int* counter;       ///< of the part's turns
  std::int32_t turn;  ///< when it is this block's
  /// Counters from `counter` on that the step passes on; 0: more steps follow.
  std::int32_t passes;
  std::int32_t rows;                ///< 0: the launch ends here
  std::int32_t masked;              ///< some of kRows x kKeys is not to be seen
  std::int32_t last;                ///< of the item
  std::int32_t token, head, batch;  ///< of the first row
};

/// What the launch says of scores, where it costs no register.
struct Factors {
  float scale;        ///< softmax_scale
  float to_tanh;      ///< product to the argument of tanh; with a softcap
  float to_exponent;  ///< product, or tanh, to exponents of 2
};

/// Where the gradients of an item go.
struct KeyRows {
  std::int64_t dk, dv;  ///< element 0 of the first key: the loader has no register for its address
  std::int32_t keys, kv_head;
};

template <int kHeadDim, int kHeadDimV, BackwardTuning kTuned>
struct BackwardShared {
  static constexpr int kDim = kHeadDim;
  static constexpr int kDimV = kHeadDimV;
  static constexpr BackwardTuning kTuning = kTuned;
  static constexpr int kRows = backward_rows(kDim);  ///< query rows of a step, at most
  static constexpr int kKeys = backward_keys(kDim);  ///< of an item, at most
  static constexpr bool kWide = kDim > 128;          ///< backward_wide.cuh
  static constexpr int kParts = kWide ? kGroups : 1;
  using Across = Columns<kDim, kParts>;  ///< of q, k
  using AcrossV = Columns<kDimV, kParts>;
  static constexpr int kStages = kTuning.stages;
  static constexpr int kDoutStages = kTuning.dout_stages;
  static constexpr int kScores = kWide ? 4 : 2;  ///< buffers of dS, or of P and dS in turn
  static constexpr int kScoreBytes = kKeys * kRows * 2;
  // dQ on its way, in boxes of 32 columns: all at once, or two of each part a round.
  static constexpr int kPartBoxes = kWide ? 2 : kDim / 32;
  static constexpr int kBoxes = kParts * kPartBoxes;
  static constexpr int kRounds = (Across::kPart / 32 + kPartBoxes - 1) / kPartBoxes;
  static constexpr int kBoxBytes = kRows * kRowBytes;
  static_assert(kDim % 32 == 0 && kDimV % 32 == 0 && (kWide || kDim == kDimV));

  unsigned char k[kKeys * Across::kBlocks * kRowBytes];
  unsigned char v[kKeys * AcrossV::kBlocks * kRowBytes];
  unsigned char q[kStages][kRows * Across::kBlocks * kRowBytes];
  unsigned char dout[kDoutStages][kRows * AcrossV::kBlocks * kRowBytes];
  unsigned char ds[kScores][kScoreBytes];  ///< transposed, [key][row]
  unsigned char dq[kBoxes * kBoxBytes];    ///< with the 128-byte swizzle
  float lse[kStages][kRows];               ///< times log2(e); +inf where P is to be 0
  float delta[kStages][kRows];
  /// Bit i of seen[.][w][r]: row r sees key 16 w + i. Of masked steps alone.
  std::uint16_t seen[kStages][kKeys / 16][kRows];
  QueryStep steps[kStages];
  KeyRows items[2];
  Factors factors;
  std::uint32_t aborted;  ///< a wait for a turn was
  // The loader's own, of whose registers there are few.
  KeyItem item;
  cuda::HeadRange heads;  ///< of its group
  cuda::StepWalker<kRows> walker;
  cuda::Step planned;
  std::int64_t pairs;
  // Full: what the loader copied or said is there; that of Q covers all but dO. Empty: every
  // consumer warp, and the adder, is done with it; dout_empty is of use where dO has fewer stages.
  std::uint64_t k_full, v_full, keys_empty;
  std::uint64_t q_full[kStages], dout_full[kDoutStages], empty[kStages], dout_empty[kDoutStages];
  std::uint64_t dq_full, dq_empty;
  Trace<kPhases> trace;
};

inline constexpr int kAdderWarp = 1;  ///< of the loader's warpgroup

// Named barriers of all consumers; 0 is __syncthreads.
inline constexpr int kScoresBarrier = 1;  ///< dS of the step is there
inline constexpr int kTailBarrier = 2;    ///< what lies behind a tile was cleared

/// One thread, before all others use them.
template <typename Memory>
__device__ inline void init_backward(Memory& s, const cuda::Geometry& g) {
  const auto scale = static_cast<float>(g.softmax_scale);
  const auto softcap = static_cast<float>(g.softcap);
  const bool capped = softcap != 0.0F;
  s.factors = {scale, capped ? scale / softcap : 0.0F, (capped ? softcap : scale) * cuda::kLog2E};
  init_barrier(&s.k_full, 1);
  init_barrier(&s.v_full, 1);
  init_barrier(&s.keys_empty, kConsumerWarps);
  for (int i = 0; i < s.kStages; ++i) {
    init_barrier(&s.q_full[i], 2);  // the copies, and the rows' numbers
    init_barrier(&s.empty[i], kConsumerWarps + (Memory::kTuning.adds ? 1 : 0));  // and the adder
  }
  for (int i = 0; i < s.kDoutStages; ++i) {
    init_barrier(&s.dout_full[i], 1);
    if (s.kDoutStages < s.kStages) init_barrier(&s.dout_empty[i], kConsumerWarps);
  }
  init_barrier(&s.dq_full, kConsumerWarps);
  init_barrier(&s.dq_empty, 1);
  s.trace = {};
  s.aborted = 0;
  fence_barrier_init();
}

}  // namespace annulus::attn::sm90
