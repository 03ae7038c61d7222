// The backward's consumers for head_dim 256, whose dK and dV do not fit in the registers of
// one warpgroup: an item has 64 keys, of which each warpgroup has half of the columns.
//
//   parts      K, V, Q, dO lie in shared memory as two halves of their columns, each of which
//              begins with a block of its own (Columns): 192 as twice a block and a half. A product
//              along the columns takes both, one across them its warpgroup's alone.
//   products   S^T and dP^T of a step, 64 keys by 64 rows, each warpgroup with half of the rows;
//              P^T and dS^T go to shared memory, where both see them whole. From there each
//              computes its columns of dV, dK and, in two rounds of at most 64 columns, of dQ.
//   overlap    in the order dP, dQ (first round), dV, dQ (second), dK, S of the next step:
//              exponentials run under dP, the rounds of dQ leave under dV and dK, dO is asked for
//              again once dV is there
//   shared     K, V; Q [2 stages], dO [1, or 2 where values have 128 columns]; P and dS [2], so
//              that one barrier a step is enough; a round of dQ: 232 KB
//   limits     head_dim = head_dim_v = 256; tiles of at most 128 x 64; the others as in
//   backward.cuh
#pragma once

#include "attention/kernels/sm90/backward_consumer.cuh"
#include "attention/kernels/sm90/backward_rows.cuh"
#include "attention/kernels/sm90/backward_scores.cuh"
#include "attention/kernels/sm90/wgmma.cuh"

namespace annulus::attn::sm90 {

/// One thread of a consumer warpgroup.
template <typename T, typename Memory, bool kCapped>
struct WideConsumer : ConsumerBase<Memory> {
  using Base = ConsumerBase<Memory>;
  using Base::at_end, Base::clear_keys, Base::clear_queries, Base::factors, Base::finish_clearing,
      Base::group, Base::lane, Base::p, Base::reach, Base::release, Base::said, Base::say_done,
      Base::shared, Base::step, Base::warp;
  using typename Base::Turn;
  using Across = typename Memory::Across;
  using AcrossV = typename Memory::AcrossV;
  using DoutTurn = Place<Memory::kDoutStages>;
  static constexpr int kRows = Memory::kRows;
  static constexpr int kKeys = Memory::kKeys;
  static constexpr int kGroups = Memory::kGroups;
  static constexpr int kShare = kRows / kGroups;  ///< rows of which a warpgroup computes P and dS
  static constexpr int kColumns = kShare / 8;     ///< of scores, as backward_scores.cuh counts them
  static_assert(kKeys == kGroupRows && kRows == kBlockWidth);
  static constexpr int kLastColumns = Across::kPart - kBlockWidth;  ///< of the second round of dQ
  static_assert(Memory::kRounds == 2);

  float dk[Across::kPart / 2], dv[AcrossV::kPart / 2];
  float dq[kBlockWidth / 2], last_dq[kLastColumns / 2];
  float s[kShare / 2], dp[kShare / 2];

  const int half;  ///< the warpgroup, for what descriptors are made of

  __device__ __forceinline__ WideConsumer(const BackwardParams& params, const Factors& of_scores,
                                          Memory& memory)
      : Base(params, of_scores, memory), half(of_warp(group())) {}

  __device__ __forceinline__ static int key() { return 16 * (warp() % 4); }  ///< the warp's first
  __device__ __forceinline__ unsigned char* probabilities() const { return scores(0); }
  __device__ __forceinline__ unsigned char* gradients() const { return scores(1); }
  __device__ __forceinline__ unsigned char* scores(int which) const {
    return shared.ds[2 * (step % 2) + which];
  }

  /// The warpgroup's part of a matrix of kKeys or kRows rows.
  template <typename Parts>
  __device__ __forceinline__ Matrix part_of(const unsigned char* matrix) const {
    constexpr std::uint32_t kBytes = Parts::kPartBlocks * kRows * kRowBytes;
    return across_rows(shared_address(matrix) + static_cast<std::uint32_t>(half) * kBytes, kRows);
  }

  /// The keys times the warpgroup's rows of the step.
  template <typename Parts>
  __device__ __forceinline__ void multiply_rows(float (&d)[kShare / 2], const unsigned char* keys,
                                                const unsigned char* rows) const {
    const Matrix a = along_rows(shared_address(keys));
    const Matrix b =
        along_rows(shared_address(rows) + static_cast<std::uint32_t>(half * kShare * kRowBytes));
    constexpr std::uint32_t kPartBytes = Parts::kPartBlocks * kRows * kRowBytes;
#pragma unroll
    for (int part = 0; part < kGroups; ++part) {
#pragma unroll
      for (int k = 0; k < Parts::kPart / 16; ++k) {
        const std::uint32_t at = part * kPartBytes + step_along_rows(k, kRows);
        multiply(d, a.at(at), b.at(at), part + k > 0, T());
      }
    }
  }

  /// sum += scores^T rows, over the rows of the step; of the warpgroup's columns.
  template <int kCount>
  __device__ __forceinline__ void add_rows(float (&sum)[kCount], const unsigned char* scores,
                                           const Matrix& b) const {
    const Matrix a = along_rows(shared_address(scores));
    fence_products();
#pragma unroll
    for (int k = 0; k < kRows / 16; ++k) {
      multiply_along_across(sum, a.at(step_along_rows(k, kKeys)), b.at(step_across_rows(k)), true,
                            T());
    }
    commit_products();
  }

  /// Waits for Q of the step and starts S^T.
  __device__ __forceinline__ void start_scores(const Turn& at) {
    wait(&shared.q_full[at.index], at.full);
    drop(s);
    fence_products();
    multiply_rows<Across>(s, shared.k, shared.q[at.index]);
    commit_products();
  }
  /// The same of dO and dP^T.
  __device__ __forceinline__ void start_slopes(const DoutTurn& at) {
    if constexpr (Memory::kLateDout) wait(&shared.dout_full[at.index], at.full);
    drop(dp);
    fence_products();
    multiply_rows<AcrossV>(dp, shared.v, shared.dout[at.index]);
    commit_products();
  }

  /// The columns of a round: of a block of K's part.
  template <int kRound, int kCount>
  __device__ __forceinline__ void start_dq(float (&d)[kCount]) {
    const Matrix a = across_rows(shared_address(gradients()), kKeys);
    const Matrix b = part_of<Across>(shared.k + kRound * kKeys * kRowBytes);
    drop(d);
    fence_products();
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      multiply_across(d, a.at(step_across_rows(k)), b.at(step_across_rows(k)), k > 0, T());
    }
    commit_products();
  }

  /// Rows behind the step's count in dK and dV (backward.cuh).
  __device__ __forceinline__ void clear_tails(const Turn& at) const {
    const int rows = said().rows;
    if (rows == kRows) return;
    clear_queries(shared.q[at.index], shared.dout[DoutTurn(step).index], rows);
  }

  __device__ __forceinline__ void leave_scores(unsigned char* to,
                                               const float (&x)[kShare / 2]) const {
    std::uint32_t packs[kShare / 4];
    pack_columns<T, kColumns>(x, packs, 0);
    store_packs<kKeys>(shared_address(to), key(), kColumns * group(), lane(), packs);
  }

  /// Starts dP^T, and from it and S^T, which is there, to P and dS in shared memory, where both
  /// warpgroups see them.
  __device__ __forceinline__ void exchange_scores(const Turn& at, const DoutTurn& of_dout) {
    const bool masked = said().masked != 0;
    const int first = kShare * half;
    const std::uint16_t* const seen = shared.seen[at.index][warp() % 4] + first;
    const HeldNumbers<kShare> lse(shared.lse[at.index] + first, lane());
    const HeldNumbers<kShare> delta(shared.delta[at.index] + first, lane());
    start_slopes(of_dout);
    if constexpr (kCapped) {
      wait_products<0>(dp);
      reach(Phase::scores);
      find_capped<kColumns>(factors, s, dp, lse, delta, lane(), 0);
      if (masked) hide<kColumns>(s, seen, lane(), 0);
      leave_scores(probabilities(), s);
    } else {
      reach(Phase::scores);
      find_probabilities<kColumns>(s, lse, factors.to_exponent, lane(), 0);
      // NOTE: the branch also keeps ptxas from moving the wait for dP before the exponentials.
      if (masked) hide<kColumns>(s, seen, lane(), 0);
      leave_scores(probabilities(), s);
      wait_products<0>(dp);
      reach(Phase::slopes);
      find_gradients<kColumns>(s, dp, delta, lane(), 0);
    }
    if (masked) hide<kColumns>(dp, seen, lane(), 0);
    leave_scores(gradients(), dp);
    clear_tails(at);
    fence_async_shared();
    reach(Phase::exchange);
    // All of P and dS is there, and what lay there two steps ago is read.
    barrier_wait(kScoresBarrier, Memory::kConsumers);
    reach(Phase::meeting);
  }

  /// Leaves a round of the warpgroup's columns of dQ to the adder, while products are under way.
  template <int kRound, int kCount>
  __device__ __forceinline__ void leave_dq(const float (&d)[kCount]) {
    if constexpr (Memory::kTuning.adds) {
      wait(&shared.dq_empty[group()], Place<1>(step * Memory::kRounds + kRound).empty);
      stage_dq(shared.dq[group()], key(), lane(), factors.scale, d);
      __syncwarp();
      release(&shared.dq_full[group()]);
    }
  }

  /// Waits for K and V of item n.
  __device__ __forceinline__ void start_item(int n) {
    const Place<1> keys(n);
#pragma unroll
    for (float& x : dk) x = 0.0F;
#pragma unroll
    for (float& x : dv) x = 0.0F;
    wait(&shared.k_full, keys.full);
    const int count = shared.items[n & 1].keys;
    if (count < kKeys) {
      clear_keys(count);
      finish_clearing();
    }
    wait(&shared.v_full, keys.full);
    reach(Phase::item);
  }

  /// A step whose S^T is there. That of the next, if the item has one, is started once dQ, the last
  /// product whose registers are read before the step ends, is there: earlier, ptxas would have all
  /// products wait for each other.
  template <bool kMore>
  __device__ __forceinline__ void run_step() {
    const Turn at(step);
    const DoutTurn of_dout(step);
    exchange_scores(at, of_dout);
    start_dq<0>(dq);
    add_rows(dv, probabilities(), part_of<AcrossV>(shared.dout[of_dout.index]));
    wait_products<1>(dq);
    reach(Phase::dq);
    leave_dq<0>(dq);
    start_dq<1>(last_dq);
    add_rows(dk, gradients(), part_of<Across>(shared.q[at.index]));
    wait_products<1>(last_dq);
    if constexpr (Memory::kLateDout) release(&shared.dout_empty[of_dout.index]);
    if constexpr (kMore) start_scores(Turn(step + 1));
    leave_dq<1>(last_dq);
    reach(Phase::added);
    if constexpr (kMore) {
      wait_products<0>(s);
    } else {
      wait_products<0>(dk);
      hold(dv);
    }
    __syncwarp();  // all lanes have read what the step says
    release(&shared.empty[at.index]);
    reach(Phase::done);
    ++step;
  }

  /// All steps of an item, which has some; one after another.
  __device__ __forceinline__ void stream_rows() {
    start_scores(Turn(step));
    wait_products<0>(s);
    while (said().last == 0) run_step<true>();
    run_step<false>();
  }

  __device__ __forceinline__ void store(const KeyRows& to) const {
    leave_keys<T, Across::kPart>(p.dk, to.dk + group() * Across::kPart, key(), to.keys, lane(),
                                 factors.scale, p.dkv_assign, dk);
    leave_keys<T, AcrossV::kPart>(p.dv, to.dv + group() * AcrossV::kPart, key(), to.keys, lane(),
                                  1.0F, p.dkv_assign, dv);
    say_done(to);
  }

  __device__ __forceinline__ void run() {
    for (int n = 0;; ++n) {
      const Turn at(step);
      wait(&shared.q_full[at.index], at.full);
      if (at_end()) return;
      start_item(n);
      stream_rows();
      release(&shared.keys_empty);
      store(shared.items[n & 1]);
    }
  }
};

}  // namespace annulus::attn::sm90
