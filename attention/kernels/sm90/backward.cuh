// Attention backward for Hopper (sm_90a), after FlashAttention-3 (Shah et al. 2024), for head dims
// up to 128; backward_wide.cuh has other consumers for those above. One block an SM
// stays for the whole launch and draws key tiles (128 keys of one key/value head) until none is
// left. Of each it keeps K and V in shared memory, dK and dV in registers, and streams the query
// rows that see it, of every query head of the group: five products a step of 64 (head_dim 128) or
// 128 (64) rows.
//
//   warps      warpgroup 0: the loader, one warp (backward_loader.cuh), and the adder, a warp that
//              has the copy engine add dQ (backward_adder.cuh), in turns where the launch is
//              deterministic (backward_turns.cuh). 40 registers a thread.
//              warpgroups 1, 2: consumers of 64 keys each, 232 registers.
//   products   S^T = K Q^T and dP^T = V dO^T from shared memory, 64 keys by the rows of the step;
//              dV += P^T dO and dK += dS^T Q with P^T and dS^T from registers, where the layout of
//              a product is that of a left operand; dQ = dS K from shared memory, of both
//              warpgroups' dS: each computes half of it, 64 rows by 64 columns, and leaves it in
//              shared memory as boxes of 32 columns.
//   overlap    exponentials run under dP^T, dS under dV, dQ leaves under dK
//   shared     K, V; Q, dO, numbers and masks of the rows [2 stages]; dS [2], so that one barrier a
//              step is enough; dQ (backward_shared.cuh): 200 KB at head_dim 128, 192 at 96, 203 at
//              64
//   tails      what lies behind a tile is read with it and cleared by the consumers (0 times what
//              is not finite is no 0): rows of K once an item, of Q and dO in steps of fewer rows
//   96         is a block of 64 columns and a half; what a box brings beside the tensor is 0. dQ is
//              computed as 128 columns, of which the last 32 are dropped
//   limits     f16, bf16; head_dim = head_dim_v = 64, 96 or 128; 16-byte aligned rows; tiles of
//              at most 128 x 128; softmax_scale > 0; key_tokens and query_tokens known (setup.h)
#pragma once

#include "attention/kernels/sm90/backward_adder.cuh"
#include "attention/kernels/sm90/backward_consumer.cuh"
#include "attention/kernels/sm90/backward_loader.cuh"
#include "attention/kernels/sm90/backward_rows.cuh"
#include "attention/kernels/sm90/backward_scores.cuh"
#include "attention/kernels/sm90/backward_turns.cuh"
#include "attention/kernels/sm90/backward_wide.cuh"
#include "attention/kernels/sm90/wgmma.cuh"

#include <type_traits>

namespace annulus::attn::sm90 {

/// One thread of a consumer warpgroup, of 64 keys; kDim up to 128.
template <typename T, typename Memory, bool kCapped>
struct GradientConsumer : ConsumerBase<Memory> {
  using Base = ConsumerBase<Memory>;
  using Base::clear_keys, Base::clear_queries, Base::finish_clearing, Base::group, Base::lane,
      Base::p, Base::reach, Base::release, Base::say_done, Base::shared, Base::step, Base::warp;
  using typename Base::Turn;
  static constexpr int kDim = Memory::kDim;
  static constexpr int kRows = Memory::kRows;
  static constexpr int kKeys = Memory::kKeys;
  static constexpr int kScoreCount = kRows / 2;  ///< of a thread

  float dk[kDim / 2], dv[kDim / 2];
  float s[kScoreCount], dp[kScoreCount], dq[32];
  std::uint32_t probabilities[kScoreCount / 2], gradients[kScoreCount / 2];

  using Base::Base;

  __device__ __forceinline__ static int key() { return 16 * warp(); }  ///< the warp's first

  __device__ __forceinline__ unsigned char* scores() const {
    return shared.ds[step % Memory::kScores];
  }

  /// The warpgroup's keys times the rows of the step.
  __device__ __forceinline__ void multiply_rows(float (&d)[kScoreCount], const unsigned char* keys,
                                                const unsigned char* rows) const {
    const Matrix a = along_rows(shared_address(keys) +
                                static_cast<std::uint32_t>(group() * kGroupRows * kRowBytes));
    const Matrix b = along_rows(shared_address(rows));
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      multiply(d, a.at(step_along_rows(k, kKeys)), b.at(step_along_rows(k, kRows)), k > 0, T());
    }
  }

  /// sum += scores^T rows, over steps [first, first + kSteps) of 16 rows.
  template <int kSteps>
  __device__ __forceinline__ void add_rows(float (&sum)[kDim / 2],
                                           const std::uint32_t (&scores)[kScoreCount / 2],
                                           const unsigned char* rows, int first) const {
    fence_products();
    const Matrix b = across_rows(shared_address(rows), kRows);
#pragma unroll
    for (int k = first; k < first + kSteps; ++k) {
      multiply_add(sum, scores + 4 * k, b.at(step_across_rows(k)), true, T());
    }
    commit_products();
  }

  /// Waits for Q of the step and starts S^T.
  __device__ __forceinline__ void start_scores(const Turn& at) {
    wait(&shared.q_full[at.index], at.full);
    drop(s);
    fence_products();
    multiply_rows(s, shared.k, shared.q[at.index]);
    commit_products();
  }
  /// The same of dO and dP^T.
  __device__ __forceinline__ void start_slopes(const Turn& at) {
    wait(&shared.dout_full[at.index], at.full);
    drop(dp);
    fence_products();
    multiply_rows(dp, shared.v, shared.dout[at.index]);
    commit_products();
  }

  /// dQ is of all keys, so of both warpgroups' dS.
  __device__ __forceinline__ void start_dq(const unsigned char* ds) {
    constexpr std::uint32_t kBlock = kKeys * kRowBytes;
    const auto half = static_cast<std::uint32_t>(group()) * kBlock;
    const Matrix a = across_rows(shared_address(ds) + (kRows > 64 ? half : 0), kKeys);
    const Matrix b = across_rows(shared_address(shared.k) + (kDim > 64 ? half : 0), kKeys);
    drop(dq);
    fence_products();
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      multiply_across(dq, a.at(step_across_rows(k)), b.at(step_across_rows(k)), k > 0, T());
    }
    commit_products();
  }

  /// Scores and slopes of rows behind the step's are of no account: they are hidden. Q and dO of
  /// those rows are not, in dK and dV.
  __device__ __forceinline__ void clear_tails(const Turn& at) const {
    const int rows = shared.steps[at.index].rows;
    if (rows == kRows) return;
    clear_queries(shared.q[at.index], shared.dout[at.index], rows);
    finish_clearing();
  }

  /// From S^T and dP^T, which are under way, to P and dS in registers, and dV under way. Half of dV
  /// is started before the other half of dS is computed; all of it, and P would be there twice.
  __device__ __forceinline__ void find_scores(const Turn& at) {
    constexpr int kColumns = kScoreCount / 4;
    const bool masked = shared.steps[at.index].masked != 0;
    const std::uint16_t* const seen = shared.seen[at.index][warp()];
    const float* const lse = shared.lse[at.index];
    const float* const delta = shared.delta[at.index];
    if constexpr (kCapped) {
      wait_products<0>(s);
      hold(dp);
    } else {
      wait_products<1>(s);
      reach(Phase::scores);
      find_probabilities<kColumns>(s, lse, shared.factors.to_exponent, lane(), 0);
      // NOTE: the branch also keeps ptxas from moving the wait for dP before the exponentials.
      if (masked) hide<kColumns>(s, seen, lane(), 0);
      wait_products<0>(dp);
    }
    clear_tails(at);
    reach(Phase::slopes);
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      constexpr int kPart = kColumns / 2;
      const int first = part * kPart;
      if constexpr (kCapped) {
        find_capped<kPart>(shared.factors, s, dp, lse, delta, lane(), first);
        if (masked) hide<kPart>(s, seen, lane(), first);
      } else {
        find_gradients<kPart>(s, dp, delta, lane(), first);
      }
      if (masked) hide<kPart>(dp, seen, lane(), first);
      pack_columns<T, kPart>(s, probabilities, first);
      pack_columns<T, kPart>(dp, gradients, first);
      add_rows<kPart / 2>(dv, probabilities, shared.dout[at.index], first / 2);
    }
  }

  /// From scores to dS in shared memory, where both warpgroups see it, and dV, which is under way.
  __device__ __forceinline__ void exchange_scores(const Turn& at) {
    find_scores(at);
    store_packs<kKeys>(shared_address(scores()), key(), 0, lane(), gradients);
    fence_async_shared();
    reach(Phase::exchange);
    // Both halves of dS are there, and the last one is read.
    barrier_wait(kScoresBarrier, kConsumers);
    reach(Phase::meeting);
  }

  /// Leaves the warpgroup's part of dQ to the adder, while products are under way.
  __device__ __forceinline__ void leave_dq() {
    reach(Phase::dq);
    if constexpr (Memory::kTuning.adds) {
      const int row = key() % kGroupRows + (kRows > 64 ? kGroupRows * group() : 0);
      constexpr int kBoxes = Memory::kBoxes;
      const int first = kDim > 64 ? 2 * group() : 0;
      wait(&shared.dq_empty, Place<1>(step).empty);
      stage_dq<kRows>(shared.dq + first * Memory::kBoxBytes, kBoxes % 2 == 0 ? 2 : kBoxes - first,
                      row, lane(), shared.factors.scale, dq);
      __syncwarp();
      release(&shared.dq_full);
    }
    reach(Phase::added);
  }

  /// Waits for K and V of item n.
  __device__ __forceinline__ void start_item(int n) {
    const Place<1> keys(n);
#pragma unroll
    for (int i = 0; i < kDim / 2; ++i) dk[i] = dv[i] = 0.0F;
    wait(&shared.k_full, keys.full);
    const int count = shared.items[n & 1].keys;
    if (count < kKeys) {
      clear_keys(count);
      finish_clearing();
    }
    wait(&shared.v_full, keys.full);
    reach(Phase::item);
  }

  /// All steps of an item, which has some; one after another.
  __device__ __forceinline__ void stream_rows() {
    for (bool more = true; more; ++step) {
      const Turn at(step);
      start_scores(at);
      start_slopes(at);
      exchange_scores(at);
      start_dq(scores());
      add_rows<kRows / 16>(dk, gradients, shared.q[at.index], 0);
      wait_products<1>(dq);
      leave_dq();
      more = shared.steps[at.index].last == 0;
      wait_products<0>(dk);
      hold(dv);
      __syncwarp();  // all lanes have read what the step says
      release(&shared.empty[at.index]);
      reach(Phase::done);
    }
  }

  __device__ __forceinline__ void store(const KeyRows& to) const {
    leave_keys<T, kDim>(p.dk, to.dk, key(), to.keys, lane(), shared.factors.scale, p.dkv_assign,
                        dk);
    leave_keys<T, kDim>(p.dv, to.dv, key(), to.keys, lane(), 1.0F, p.dkv_assign, dv);
    say_done(to);
  }

  __device__ __forceinline__ void run() {
    for (int n = 0;; ++n) {
      const Turn at(step);
      wait(&shared.q_full[at.index], at.full);
      if (shared.steps[at.index].rows == 0) return;
      start_item(n);
      stream_rows();
      release(&shared.keys_empty);
      store(shared.items[n & 1]);
    }
  }
};

/// All of a block; `memory`: sizeof(Memory), 1024-byte aligned.
template <typename T, typename Memory, bool kCapped, bool kOrdered>
__device__ __forceinline__ void run_backward_block(const cuda::Geometry& g, const BackwardParams& p,
                                                   const BackwardMaps& maps,
                                                   const KeySchedule& schedule, int* turns,
                                                   unsigned char* memory) {
  constexpr BackwardTuning kTuning = Memory::kTuning;
  auto& shared = *reinterpret_cast<Memory*>(memory);
  if (threadIdx.x == 0) init_backward(shared, g);
  __syncthreads();
  if (threadIdx.x < kGroupThreads) {
    give_registers<kTuning.loader_registers>();
    if (threadIdx.x < 32) {
      QueryLoader<Memory, kOrdered>(g, p, maps, schedule, turns, shared).run();
    } else if (kTuning.adds && threadIdx.x / 32 == kAdderWarp) {
      QueryAdder<Memory, kOrdered>(g, maps, shared).run();
    }
  } else {
    take_registers<kTuning.consumer_registers>();
    using Consumer = std::conditional_t<Memory::kWide, WideConsumer<T, Memory, kCapped>,
                                        GradientConsumer<T, Memory, kCapped>>;
    Consumer(p, shared).run();
    if (kTuning.traced && blockIdx.x == 0 && threadIdx.x == kGroupThreads) {
      write_trace(shared.trace, g.flops);
    }
  }
}

}  // namespace annulus::attn::sm90
