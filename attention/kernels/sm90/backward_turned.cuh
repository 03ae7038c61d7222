// The backward's consumers for head_dim 192: dK and dV are transposed, so that an item has 96 keys
// and three warpgroups share its columns (after FlashAttention-3's shape).
//
//   products   S = Q K^T and dP = dO V^T of a step, 64 rows by the 32 keys of each warpgroup; P and
//              dS go to shared memory as [row][key], where all see them whole. From there each
//              computes 64 columns: of dV^T = dO^T P, of dQ = dS K and of dK^T = Q^T dS. Values of
//              128 columns are two parts for three warpgroups: there each has dV^T of its own keys.
//   overlap    dP beside S's exponentials; dV, dQ, dK are started together: dO is asked for again
//              once dV is there, dQ leaves under dK
//   shared     K, V; Q [2 stages], dO [1, or 2 where values have 128 columns]; P, dS, dQ
//   limits     head_dim 192, head_dim_v 192 or 128; tiles of at most 128 x 96; the others as in
//              backward.cuh
#pragma once

#include "attention/kernels/sm90/backward_consumer.cuh"
#include "attention/kernels/sm90/backward_rows.cuh"
#include "attention/kernels/sm90/backward_scores.cuh"
#include "attention/kernels/sm90/wgmma.cuh"

namespace annulus::attn::sm90 {

/// One thread of a consumer warpgroup.
template <typename T, typename Memory, bool kCapped>
struct TurnedConsumer : ConsumerBase<Memory> {
  using Base = ConsumerBase<Memory>;
  using Base::at_end, Base::clear_keys, Base::clear_queries, Base::factors, Base::finish_clearing,
      Base::group, Base::lane, Base::p, Base::reach, Base::release, Base::said, Base::say_done,
      Base::shared, Base::step, Base::warp;
  using typename Base::Turn;
  using DoutTurn = Place<Memory::kDoutStages>;
  static constexpr int kDim = Memory::kDim;
  static constexpr int kDimV = Memory::kDimV;
  static constexpr int kRows = Memory::kRows;
  static constexpr int kKeys = Memory::kKeys;
  static constexpr int kShare = kKeys / Memory::kGroups;      ///< keys whose P and dS it computes
  static constexpr bool kOwnKeys = kDimV == 2 * kBlockWidth;  ///< of which it has dV
  static constexpr int kParts = kOwnKeys ? 2 : 1;             ///< of 64 columns of dV
  static constexpr int kPartKeys = kOwnKeys ? kShare : kKeys;
  static constexpr std::uint32_t kBlockBytes = kRows * kRowBytes;
  static_assert(kDim == Memory::kGroups * kBlockWidth && kRows == kBlockWidth && kShare == 32);
  static_assert(kOwnKeys || kDimV == kDim);

  float dk[kKeys / 2], dv[kParts][kPartKeys / 2];
  float s[kShare / 2], dp[kShare / 2], dq[kBlockWidth / 2];

  const int third;  ///< the warpgroup, for what descriptors are made of

  __device__ __forceinline__ TurnedConsumer(const BackwardParams& params, const Factors& of_scores,
                                            Memory& memory)
      : Base(params, of_scores, memory), third(of_warp(group())) {}

  /// The warp's first row of a step, or column of its warpgroup's.
  __device__ __forceinline__ static int row() { return 16 * (warp() % 4); }
  __device__ __forceinline__ unsigned char* probabilities() const { return shared.ds[0]; }
  __device__ __forceinline__ unsigned char* gradients() const { return shared.ds[1]; }

  /// The step's rows times the warpgroup's keys.
  template <int kColumns>
  __device__ __forceinline__ void multiply_keys(float (&d)[kShare / 2], const unsigned char* rows,
                                                const unsigned char* keys) const {
    const Matrix a = along_rows(shared_address(rows));
    Matrix b =
        along_rows(shared_address(keys) + static_cast<std::uint32_t>(third * kShare * kRowBytes));
    forget(b.low);  // descriptors of all steps would be held
    drop(d);
    fence_products();
#pragma unroll
    for (int k = 0; k < kColumns / 16; ++k) {
      multiply(d, a.at(step_along_rows(k, kRows)), b.at(step_along_rows(k, kKeys)), k > 0, T());
    }
    commit_products();
  }

  /// sum += 64 columns of rows^T times scores, over the rows of the step.
  template <int kCount>
  __device__ __forceinline__ void add_columns(float (&sum)[kCount], const unsigned char* columns,
                                              const unsigned char* scores) const {
    Matrix a = across_rows(shared_address(columns), kRows);
    Matrix b = across_rows(shared_address(scores), kRows);
    forget(a.low);
    forget(b.low);
#pragma unroll
    for (int k = 0; k < kRows / 16; ++k) {
      multiply_across(sum, a.at(step_across_rows(k)), b.at(step_across_rows(k)), true, T());
    }
  }
  __device__ __forceinline__ void add_values(const unsigned char* dout) {
    fence_products();
    if constexpr (kOwnKeys) {
      // Half a block of keys; a row's other half stays where it is.
      const unsigned char* const own =
          probabilities() + third / 2 * kBlockBytes + third % 2 * (kRowBytes / 2);
#pragma unroll
      for (int i = 0; i < kParts; ++i) add_columns(dv[i], dout + i * kBlockBytes, own);
    } else {
      add_columns(dv[0], dout + third * kBlockBytes, probabilities());
    }
    commit_products();
  }
  __device__ __forceinline__ void add_keys(const unsigned char* q) {
    fence_products();
    add_columns(dk, q + third * kBlockBytes, gradients());
    commit_products();
  }

  /// The warpgroup's columns of dQ.
  __device__ __forceinline__ void start_dq() {
    Matrix a = along_rows(shared_address(gradients()));
    Matrix b = across_rows(
        shared_address(shared.k) + static_cast<std::uint32_t>(third * kKeys * kRowBytes), kKeys);
    forget(a.low);
    forget(b.low);
    drop(dq);
    fence_products();
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      multiply_along_across(dq, a.at(step_along_rows(k, kRows)), b.at(step_across_rows(k)), k > 0,
                            T());
    }
    commit_products();
  }

  /// What a thread is told of its two rows.
  struct OfRows {
    float lse[2], delta[2];
    std::uint32_t seen[2];  ///< bit i: the warpgroup's key i
    bool masked;
  };
  /// Read before products are started: behind them it would wait until tensor cores take them.
  __device__ __forceinline__ OfRows numbers(int stage) const {
    OfRows of;
    of.masked = said().masked != 0;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int r = row() + (lane() >> 2) + 8 * h;
      of.lse[h] = shared.lse[stage][r];
      of.delta[h] = shared.delta[stage][r];
      of.seen[h] = ~0U;
      if (of.masked) {
        of.seen[h] = shared.seen[stage][2 * third][r] |
                     static_cast<std::uint32_t>(shared.seen[stage][2 * third + 1][r]) << 16;
      }
    }
    return of;
  }

  /// Zero where a row does not see a key.
  __device__ __forceinline__ static void hide(float (&x)[kShare / 2], const OfRows& of) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const std::uint32_t bits = of.seen[h] >> (2 * (lane() & 3));
#pragma unroll
      for (int j = 0; j < kShare / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          if (((bits >> (8 * j + e)) & 1U) == 0) x[4 * j + 2 * h + e] = 0.0F;
        }
      }
    }
  }

  __device__ __forceinline__ void find_probabilities(const OfRows& of) {
#pragma unroll
    for (int i = 0; i < kShare / 2; ++i) {
      s[i] = exp2_fast(fmaf(s[i], factors.to_exponent, -of.lse[i / 2 % 2]));
    }
  }
  __device__ __forceinline__ void find_gradients(const OfRows& of) {
#pragma unroll
    for (int i = 0; i < kShare / 2; ++i) dp[i] = s[i] * (dp[i] - of.delta[i / 2 % 2]);
  }
  /// Both at once, for the slope of the cap is not kept.
  __device__ __forceinline__ void find_capped(const OfRows& of) {
#pragma unroll
    for (int i = 0; i < kShare / 2; ++i) {
      const float t = tanh_fast(s[i] * factors.to_tanh);
      s[i] = exp2_fast(fmaf(t, factors.to_exponent, -of.lse[i / 2 % 2]));
      dp[i] = s[i] * ((dp[i] - of.delta[i / 2 % 2]) * (1.0F - t * t));
    }
  }

  __device__ __forceinline__ void leave_scores(unsigned char* to,
                                               const float (&x)[kShare / 2]) const {
    std::uint32_t packs[kShare / 4];
    pack_columns<T, kShare / 8>(x, packs, 0);
    store_packs<kRows>(shared_address(to), row(), kShare / 8 * group(), lane(), packs);
  }

  /// Rows behind the step's count in dK and dV (backward.cuh).
  __device__ __forceinline__ void clear_tails(const Turn& at, const DoutTurn& of_dout) const {
    const int rows = said().rows;
    if (rows != kRows) clear_queries(shared.q[at.index], shared.dout[of_dout.index], rows);
  }

  /// S and dP, and from them P and dS in shared memory, where all warpgroups see them.
  __device__ __forceinline__ void exchange_scores(const Turn& at, const DoutTurn& of_dout) {
    wait(&shared.q_full[at.index], at.full);
    const OfRows of = numbers(at.index);
    multiply_keys<kDim>(s, shared.q[at.index], shared.k);
    if constexpr (Memory::kLateDout) wait(&shared.dout_full[of_dout.index], of_dout.full);
    multiply_keys<kDimV>(dp, shared.dout[of_dout.index], shared.v);
    if constexpr (kCapped) {
      wait_products<0>(s);
      hold(dp);
      reach(Phase::scores);
      find_capped(of);
      if (of.masked) hide(s, of);
    } else {
      wait_products<1>(s);
      reach(Phase::scores);
      find_probabilities(of);
      // NOTE: the branch also keeps ptxas from moving the wait for dP before the exponentials.
      if (of.masked) hide(s, of);
    }
    // What lies there of the step before is read.
    barrier_wait(kRoomBarrier, Memory::kConsumers);
    leave_scores(probabilities(), s);
    if constexpr (!kCapped) {
      wait_products<0>(dp);
      reach(Phase::slopes);
      find_gradients(of);
    }
    if (of.masked) hide(dp, of);
    leave_scores(gradients(), dp);
    if (of.masked) clear_tails(at, of_dout);
    fence_async_shared();
    reach(Phase::exchange);
    barrier_wait(kScoresBarrier, Memory::kConsumers);
    reach(Phase::meeting);
  }

  /// Leaves the warpgroup's columns of dQ to the adder, while products are under way.
  __device__ __forceinline__ void leave_dq() {
    if constexpr (Memory::kTuning.adds) {
      wait(&shared.dq_empty[group()], Place<1>(step).empty);
      stage_dq(shared.dq[group()], row(), lane(), factors.scale, dq);
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
    for (auto& part : dv) {
#pragma unroll
      for (float& x : part) x = 0.0F;
    }
    wait(&shared.k_full, keys.full);
    const int count = shared.items[n & 1].keys;
    if (count < kKeys) {
      clear_keys(count);
      finish_clearing();
    }
    wait(&shared.v_full, keys.full);
    reach(Phase::item);
  }

  /// False where the step is the item's last.
  __device__ __forceinline__ bool run_step() {
    const Turn at(step);
    const DoutTurn of_dout(step);
    exchange_scores(at, of_dout);
    const bool more = said().last == 0;
    add_values(shared.dout[of_dout.index]);
    start_dq();
    add_keys(shared.q[at.index]);
    if constexpr (Memory::kLateDout) {
      wait_products<2>();
      release(&shared.dout_empty[of_dout.index]);
    }
    wait_products<1>(dq);
    reach(Phase::dq);
    leave_dq();
    reach(Phase::added);
    wait_products<0>(dk);
#pragma unroll
    for (auto& part : dv) hold(part);
    __syncwarp();  // all lanes have read what the step says
    release(&shared.empty[at.index]);
    reach(Phase::done);
    ++step;
    return more;
  }

  __device__ __forceinline__ void store(const KeyRows& to) const {
    const int column = kBlockWidth * group() + row();
    leave_turned<T>(p.dk, to.dk + column, 0, to.keys, lane(), factors.scale, p.dkv_assign, dk);
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      leave_turned<T>(p.dv, to.dv + (kOwnKeys ? kBlockWidth * i + row() : column),
                      kOwnKeys ? kShare * group() : 0, to.keys, lane(), 1.0F, p.dkv_assign, dv[i]);
    }
    say_done(to);
  }

  __device__ __forceinline__ void run() {
    for (int n = 0;; ++n) {
      const Turn at(step);
      wait(&shared.q_full[at.index], at.full);
      if (at_end()) return;
      start_item(n);
      while (run_step()) {
      }
      release(&shared.keys_empty);
      store(shared.items[n & 1]);
    }
  }
};

}  // namespace annulus::attn::sm90
