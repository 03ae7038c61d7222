// Attention backward for Hopper (sm_90a), after FlashAttention-3 (Shah et al. 2024), for head dims
// up to 128; backward_turned.cuh (192) and backward_wide.cuh (256) have other consumers. One block
// an SM stays for the whole launch and draws key tiles (128 keys of one key/value head) until none
// is left. Of each it keeps K and V in shared memory, dK and dV in registers, and streams the query
// rows that see it, of every query head of the group: five products a step of 64 (head_dim 128) or
// 128 (64) rows.
//
//   warps      warpgroup 0: the loader, one warp (backward_loader.cuh), and the adder, a warp that
//              has the copy engine add dQ (backward_adder.cuh), in turns where the launch is
//              deterministic (backward_turns.cuh). 40 registers a thread.
//              warpgroups 1, 2: consumers of 64 keys each, 232 registers.
//   products   S^T = K Q^T and dP^T = V dO^T from shared memory, 64 keys by the rows of the step;
//              dV += P^T dO and dK += dS^T Q with P^T and dS^T from registers, where the layout of
//              a product is that of a left operand; dQ^T = K^T dS^T from shared memory, of both
//              warpgroups' dS: each computes half of it, 64 columns by 64 rows, and leaves it in
//              shared memory as boxes of 32 columns.
//   overlap    dQ is a step behind, so that the warpgroups do not wait for each other: exponentials
//              of one run beside products of the other, dQ leaves under dK. At 64 they are in lock
//              step: half of the exponentials are issued between dP^T's products, and dQ is stored
//              between dK's
//   shared     K, V; Q, dO, numbers and masks of the rows [2 stages]; dS [3; 2 at head_dim 64], dQ
//              (backward_shared.cuh): 217 KB at head_dim 128 and 96, 203 at 64
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
#include "attention/kernels/sm90/backward_turned.cuh"
#include "attention/kernels/sm90/backward_turns.cuh"
#include "attention/kernels/sm90/backward_wide.cuh"
#include "attention/kernels/sm90/wgmma.cuh"

#include <type_traits>

namespace annulus::attn::sm90 {

/// Of a product whose steps have nothing beside them.
struct Nothing {
  __device__ __forceinline__ void operator()(int /*k*/) const {}
};

/// One thread of a consumer warpgroup, of 64 keys; kDim up to 128.
template <typename T, typename Memory, bool kCapped>
struct GradientConsumer : ConsumerBase<Memory> {
  using Base = ConsumerBase<Memory>;
  using Base::at_end, Base::clear_keys, Base::clear_queries, Base::factors, Base::finish_clearing,
      Base::group, Base::lane, Base::p, Base::reach, Base::release, Base::said, Base::say_done,
      Base::shared, Base::step, Base::warp;
  using typename Base::Turn;
  static constexpr int kDim = Memory::kDim;
  static constexpr int kRows = Memory::kRows;
  static constexpr int kKeys = Memory::kKeys;
  static constexpr int kScoreCount = kRows / 2;  ///< of a thread
  static constexpr bool kApart = Memory::kApart;
  /// Of a step's columns: in lock step the exponentials of the first run beside dP^T.
  static constexpr int kParts = kApart ? 1 : 2;

  float dk[kDim / 2], dv[kDim / 2];
  float s[kScoreCount], dp[kScoreCount], dq[32];
  std::uint32_t probabilities[kScoreCount / 2], gradients[kScoreCount / 2];

  const int half;  ///< the warpgroup, for what descriptors are made of

  __device__ __forceinline__ GradientConsumer(const BackwardParams& params,
                                              const Factors& of_scores, Memory& memory)
      : Base(params, of_scores, memory), half(of_warp(group())) {}

  __device__ __forceinline__ static int key() { return 16 * warp(); }  ///< the warp's first

  /// The warpgroup's keys times the rows of the step; `beside(k)` behind the product of each 16
  /// columns.
  template <typename Beside>
  __device__ __forceinline__ void multiply_rows(float (&d)[kScoreCount], const unsigned char* keys,
                                                const unsigned char* rows,
                                                const Beside& beside) const {
    Matrix a = along_rows(shared_address(keys) +
                          static_cast<std::uint32_t>(half * kGroupRows * kRowBytes));
    forget(a.low);  // descriptors of all steps would be held
    const Matrix b = along_rows(shared_address(rows));
    drop(d);
    fence_products();
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      multiply(d, a.at(step_along_rows(k, kKeys)), b.at(step_along_rows(k, kRows)), k > 0, T());
      beside(k);
    }
    commit_products();
  }

  /// sum += scores^T rows; `beside(k)` behind the product of each 16 rows.
  template <typename Beside>
  __device__ __forceinline__ void add_rows(float (&sum)[kDim / 2],
                                           const std::uint32_t (&scores)[kScoreCount / 2],
                                           const unsigned char* rows, const Beside& beside) const {
    fence_products();
    const Matrix b = across_rows(shared_address(rows), kRows);
#pragma unroll
    for (int k = 0; k < kRows / 16; ++k) {
      multiply_add(sum, scores + 4 * k, b.at(step_across_rows(k)), true, T());
      beside(k);
    }
    commit_products();
  }

  /// dQ^T of step n is of all keys, so of both warpgroups' dS: each computes 64 columns of all
  /// rows, or of all columns half of the rows.
  __device__ __forceinline__ void start_dq(int n) {
    const auto part = static_cast<std::uint32_t>(half);
    Matrix a =
        across_rows(shared_address(shared.k) + (kDim > 64 ? part * kKeys * kRowBytes : 0), kKeys);
    forget(a.low);
    const Matrix b = along_rows(shared_address(shared.ds[n % Memory::kScores]) +
                                (kRows > 64 ? part * kBoxRows * kRowBytes : 0));
    drop(dq);
    fence_products();
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      multiply_across_along(dq, a.at(step_across_rows(k)), b.at(step_along_rows(k, kRows)), k > 0,
                            T());
    }
    commit_products();
  }

  /// Scores and slopes of rows behind the step's are of no account: they are hidden. Q and dO of
  /// those rows are not, in dK and dV.
  __device__ __forceinline__ void clear_tails(const Turn& at) const {
    const int rows = said().rows;
    if (rows == kRows) return;
    clear_queries(shared.q[at.index], shared.dout[at.index], rows);
    finish_clearing();
  }

  /// What dS of the step and dQ of the one before need: room, and dS of both warpgroups.
  template <bool kFirst>
  __device__ __forceinline__ void await_slopes() const {
    const Place<Memory::kScores> own(step), last(step - 1);
    wait(&shared.ds_empty[own.index], own.empty);
    if constexpr (!kFirst) wait(&shared.ds_full[last.index], last.full);
  }

  /// S^T and dP^T of the step, there when this ends. Exponentials do not begin before the tensor
  /// cores have taken what was started before them. Where warpgroups are apart, the other one's
  /// products run beside them; in lock step, half of them are issued between those of dP^T.
  template <bool kFirst, typename Numbers>
  __device__ __forceinline__ void multiply_both(const Turn& at, const Numbers& lse) {
    multiply_rows(s, shared.k, shared.q[at.index], Nothing());
    if constexpr (kApart) {
      multiply_rows(dp, shared.v, shared.dout[at.index], Nothing());
      await_slopes<kFirst>();
      wait_products<0>(s);
      hold(dp);
    } else {
      wait_products<0>(s);
      multiply_rows(dp, shared.v, shared.dout[at.index], [&](int k) {
        constexpr int kPairs = kScoreCount / 4;  // of the first half of the columns
        constexpr int kEach = (kPairs - 1) / (kDim / 16) + 1;
        if constexpr (!kCapped) {
#pragma unroll
          for (int i = kEach * k; i < kEach * (k + 1) && i < kPairs; ++i) {
            find_pair(s, lse, factors.to_exponent, lane(), i / 2, i % 2);
          }
        }
      });
      wait_products<0>(dp);
    }
  }

  /// P and dS, rounded, where S^T and dP^T are there.
  template <bool kMasked, typename Numbers>
  __device__ __forceinline__ void find_parts(const Turn& at, const Numbers& lse) {
    constexpr int kPart = kScoreCount / 4 / kParts;
    const Numbers delta(shared.delta[at.index], lane());
#pragma unroll
    for (int first = 0; first < kScoreCount / 4; first += kPart) {
      if constexpr (kCapped) {
        find_capped<kPart>(factors, s, dp, lse, delta, lane(), first);
      } else if (!kApart && first == 0) {
        find_gradients<kPart>(s, dp, delta, lane(), first);
      } else {
        find_both<kPart>(s, dp, lse, delta, factors.to_exponent, lane(), first);
      }
      if constexpr (kMasked) {
        const std::uint16_t* const seen = shared.seen[at.index][warp()];
        hide<kPart>(s, seen, lane(), first);
        hide<kPart>(dp, seen, lane(), first);
      }
      pack_columns<T, kPart>(s, probabilities, first);
      pack_columns<T, kPart>(dp, gradients, first);
    }
  }

  /// S^T and dP^T, and from them P and dS in registers. What is read from shared memory behind
  /// products that are started waits until the tensor cores take them: so numbers are read before.
  template <bool kFirst>
  __device__ __forceinline__ void find_scores(const Turn& at) {
    using Numbers = std::conditional_t<kApart && !kCapped, HeldNumbers<kRows>, RowNumbers<kRows>>;
    const bool masked = said().masked != 0;
    const Numbers lse(shared.lse[at.index], lane());
    multiply_both<kFirst>(at, lse);
    reach(Phase::scores);
    if (masked) {
      clear_tails(at);
      find_parts<true>(at, lse);
    } else {
      find_parts<false>(at, lse);
    }
    reach(Phase::slopes);
  }

  /// The step's dS to shared memory, where both warpgroups see it, and dQ that is `staged`, if some
  /// is, to the adder: one fence for both. An earlier one would have the copy engine read
  /// dQ while S^T and dP^T take all that shared memory gives (docs/notes/08). Starts dV: behind dS,
  /// which would else wait for it (see find_scores).
  __device__ __forceinline__ void keep_slopes(const Turn& at, bool staged) {
    const int to = step % Memory::kScores;
    store_by_row<kRows>(shared_address(shared.ds[to]), key(), lane(), gradients);
    add_rows(dv, probabilities, shared.dout[at.index], Nothing());
    fence_async_shared();
    __syncwarp();
    if constexpr (kApart) release(&shared.ds_full[to]);
    if (staged) release(&shared.dq_full[half]);
    reach(Phase::exchange);
    if constexpr (!kApart) barrier_wait(kScoresBarrier, Memory::kConsumers);
    reach(Phase::meeting);
  }

  /// Waits for the warpgroup's part of dQ of step n, and for room where the adder takes it from;
  /// kPending: products behind it.
  template <int kPending>
  __device__ __forceinline__ void await_dq(int n) {
    if constexpr (Memory::kTuning.adds) wait(&shared.dq_empty[half], Place<1>(n).empty);
    wait_products<kPending>(dq);
    hold(dv);
    if constexpr (kApart) release(&shared.ds_empty[n % Memory::kScores]);
    reach(Phase::dq);
  }

  /// Leaves it there, but for a fence: part `part` of kRows / 16. At 96 also the columns that the
  /// adder does not take: a branch between products would serialise them.
  __device__ __forceinline__ void stage(int part) const {
    constexpr int kEach = kBoxRows / 8 / (kRows / 16);
    if constexpr (!Memory::kTuning.adds) return;
    const ColumnStage to(shared.dq[half], key() % kGroupRows, lane());
#pragma unroll
    for (int j = kEach * part; j < kEach * (part + 1); ++j) to.store(j, factors.scale, dq);
  }
  __device__ __forceinline__ void stage_all() const {
#pragma unroll
    for (int part = 0; part < kRows / 16; ++part) stage(part);
    reach(Phase::added);
  }

  __device__ __forceinline__ void leave_staged() const {
    if constexpr (!Memory::kTuning.adds) return;
    fence_async_shared();
    __syncwarp();
    release(&shared.dq_full[half]);
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

  /// A step, with dQ of the one before it if the warpgroups are apart: so one has exponentials to
  /// compute while the other has products. `staged`: some dQ waits for a fence. False where the
  /// step is the item's last.
  template <bool kFirst>
  __device__ __forceinline__ bool run_step(bool staged) {
    const Turn at(step);
    wait(&shared.q_full[at.index], at.full);
    const bool more = said().last == 0;  // read before products, as numbers are
    find_scores<kFirst>(at);
    keep_slopes(at, staged);
    if constexpr (kApart) {
      if constexpr (!kFirst) start_dq(step - 1);
      add_rows(dk, gradients, shared.q[at.index], Nothing());
      if constexpr (!kFirst) {
        await_dq<1>(step - 1);
        stage_all();
      }
    } else {
      start_dq(step);
      await_dq<0>(step);
      add_rows(dk, gradients, shared.q[at.index], [&](int part) { stage(part); });
      leave_staged();
    }
    wait_products<0>(dk);
    hold(dv);
    __syncwarp();  // all lanes have read what the step says
    release(&shared.empty[at.index]);
    reach(Phase::done);
    ++step;
    return more;
  }

  /// All steps of an item, which has some, and dQ of its last.
  __device__ __forceinline__ void stream_rows() {
    if constexpr (!kApart) {
      while (run_step<false>(false)) {
      }
      return;
    }
    bool more = run_step<true>(false);
    bool staged = false;
    while (more) {
      more = run_step<false>(staged);
      staged = Memory::kTuning.adds;
    }
    await_slopes<false>();
    start_dq(step - 1);
    if (staged) leave_staged();
    await_dq<0>(step - 1);
    stage_all();
    leave_staged();
  }

  __device__ __forceinline__ void store(const KeyRows& to) const {
    leave_keys<T, kDim>(p.dk, to.dk, key(), to.keys, lane(), factors.scale, p.dkv_assign, dk);
    leave_keys<T, kDim>(p.dv, to.dv, key(), to.keys, lane(), 1.0F, p.dkv_assign, dv);
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

/// All of a block; `memory`: sizeof(Memory), 1024-byte aligned.
template <typename T, typename Memory, bool kCapped, bool kOrdered>
__device__ __forceinline__ void run_backward_block(const cuda::Geometry& g, const BackwardParams& p,
                                                   const BackwardMaps& maps,
                                                   const KeySchedule& schedule,
                                                   const Factors& factors, int* turns,
                                                   unsigned char* memory) {
  constexpr BackwardTuning kTuning = Memory::kTuning;
  auto& shared = *reinterpret_cast<Memory*>(memory);
  if (threadIdx.x == 0) init_backward(shared);
  __syncthreads();
  if (threadIdx.x < kGroupThreads) {
    give_registers<kTuning.loader_registers>();
    if (threadIdx.x < 32) {
      QueryLoader<Memory, kOrdered>(g, p, maps, schedule, turns, shared).run();
    } else if (kTuning.adds && threadIdx.x / 32 < kAdderWarp + (kOrdered ? 2 : Memory::kGroups)) {
      QueryAdder<Memory, kOrdered>(g, maps, shared, static_cast<int>(threadIdx.x) / 32).run();
    }
  } else {
    take_registers<kTuning.consumer_registers>();
    using Consumer =
        std::conditional_t<Memory::kTurned, TurnedConsumer<T, Memory, kCapped>,
                           std::conditional_t<Memory::kWide, WideConsumer<T, Memory, kCapped>,
                                              GradientConsumer<T, Memory, kCapped>>>;
    Consumer(p, factors, shared).run();
    if (kTuning.traced && blockIdx.x == 0 && threadIdx.x == kGroupThreads) {
      write_trace(shared.trace, g.flops);
    }
  }
}

}  // namespace annulus::attn::sm90
