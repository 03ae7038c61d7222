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
inline constexpr int kTileKeys = 128;  ///< keys of an item, at most
inline constexpr int kGroups = 2;      ///< consumer warpgroups, of 64 keys each
inline constexpr int kThreads = (1 + kGroups) * kGroupThreads;
inline constexpr int kConsumerWarps = kGroups * 4;

/// Query rows that meet the block's key tile: a part of one tile of the list by key, of one head.
struct QueryStep {
  int* counter;       ///< of the part's turns
  std::int32_t turn;  ///< when it is this block's
  /// Counters from `counter` on that the step passes on; 0: more steps follow.
  std::int32_t passes;
  std::int32_t rows;                ///< 0: the launch ends here
  std::int32_t masked;              ///< some of kRows x kTileKeys is not to be seen
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
  float *dk, *dv;  ///< of the first key
  std::int32_t keys, kv_head;
};

template <int kDim, BackwardTuning kTuning>
struct BackwardShared {
  static constexpr int kRows = backward_rows(kDim);  ///< query rows of a step, at most
  static constexpr int kStages = kTuning.stages;
  static constexpr int kScores = 2;  ///< buffers of dS
  static constexpr int kKeyBytes = kTileKeys * kDim * 2;
  static constexpr int kQueryBytes = kRows * kDim * 2;
  static constexpr int kScoreBytes = kTileKeys * kRows * 2;

  unsigned char k[kKeyBytes], v[kKeyBytes];
  unsigned char q[kStages][kQueryBytes], dout[kStages][kQueryBytes];
  unsigned char ds[kScores][kScoreBytes];  ///< dS^T, [key][row]
  unsigned char dq[kRows * kDim * 4];      ///< boxes of 32 columns, with the 128-byte swizzle
  float lse[kStages][kRows];               ///< times log2(e); +inf where P is to be 0
  float delta[kStages][kRows];
  /// Bit i of seen[.][w][r]: row r sees key 16 w + i. Of masked steps alone.
  std::uint16_t seen[kStages][kConsumerWarps][kRows];
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
  // consumer warp, and the adder, is done with it.
  std::uint64_t k_full, v_full, keys_empty;
  std::uint64_t q_full[kStages], dout_full[kStages], empty[kStages];
  std::uint64_t dq_full, dq_empty;
  Trace<kPhases> trace;
};

inline constexpr int kAdderWarp = 1;  ///< of the loader's warpgroup

// Named barriers of all consumers; 0 is __syncthreads.
inline constexpr int kScoresBarrier = 1;  ///< dS of the step is there
inline constexpr int kTailBarrier = 2;    ///< what lies behind a tile was cleared

/// One thread, before all others use them.
template <int kDim, BackwardTuning kTuning>
__device__ inline void init_backward(BackwardShared<kDim, kTuning>& s, const cuda::Geometry& g) {
  const auto scale = static_cast<float>(g.softmax_scale);
  const auto softcap = static_cast<float>(g.softcap);
  const bool capped = softcap != 0.0F;
  s.factors = {scale, capped ? scale / softcap : 0.0F, (capped ? softcap : scale) * cuda::kLog2E};
  init_barrier(&s.k_full, 1);
  init_barrier(&s.v_full, 1);
  init_barrier(&s.keys_empty, kConsumerWarps);
  for (int i = 0; i < s.kStages; ++i) {
    init_barrier(&s.q_full[i], 2);  // the copies, and the rows' numbers
    init_barrier(&s.dout_full[i], 1);
    init_barrier(&s.empty[i], kConsumerWarps + (kTuning.adds ? 1 : 0));  // and the adder
  }
  init_barrier(&s.dq_full, kConsumerWarps);
  init_barrier(&s.dq_empty, 1);
  s.trace = {};
  s.aborted = 0;
  fence_barrier_init();
}

}  // namespace annulus::attn::sm90
