// Attention backward for Hopper (sm_90a), after FlashAttention-3 (Shah et al. 2024). One block an
// SM stays for the whole launch and draws key tiles (128 keys of one key/value head) until none is
// left. Of each it keeps K and V in shared memory, dK and dV in registers, and streams the query
// rows that see it, of every query head of the group: five products a step of 64 (head_dim 128) or
// 128 (64) rows.
//
//   warps      warpgroup 0: the loader, one warp (backward_loader.cuh), and one thread that keeps
//              turns where the launch is deterministic (backward_turns.cuh), or a warp that has the
//              copy engine add dQ (backward_adder.cuh). 40 registers a thread.
//              warpgroups 1, 2: consumers of 64 keys each, 232 registers.
//   products   S^T = K Q^T and dP^T = V dO^T from shared memory, 64 keys by the rows of the step;
//              dV += P^T dO and dK += dS^T Q with P^T and dS^T from registers, where the layout of
//              a product is that of a left operand; dQ = dS K from shared memory, of both
//              warpgroups' dS: each computes half of it, 64 rows by 64 columns, and adds it to
//              memory from registers (red.v4, 128 bytes of a row at a time).
//   overlap    exponentials run under dP^T, dS under dV, the additions of dQ under dK; or, where a
//              tuning (backward_tuning.h) is `delayed`, under S^T of the next step, and dS under dK
//              of the last
//   shared     K, V; Q, dO, numbers and masks of the rows [3 stages]; dS [2], so that one barrier a
//              step is enough (backward_shared.cuh): 202 KB at head_dim 128, 210 at 64
//   tails      what lies behind a tile is read with it and cleared by the consumers (0 times what
//              is not finite is no 0): rows of K once an item, of Q and dO in steps of fewer rows
//   limits     f16, bf16; head_dim = head_dim_v = 64 or 128; 16-byte aligned rows; tiles of at most
//              128 x 128; softmax_scale > 0; key_tokens and query_tokens known (setup.h)
#pragma once

#include "attention/kernels/sm90/backward_adder.cuh"
#include "attention/kernels/sm90/backward_loader.cuh"
#include "attention/kernels/sm90/backward_rows.cuh"
#include "attention/kernels/sm90/backward_scores.cuh"
#include "attention/kernels/sm90/backward_turns.cuh"
#include "attention/kernels/sm90/wgmma.cuh"

namespace annulus::attn::sm90 {

/// One thread of a consumer warpgroup.
template <typename T, int kDim, BackwardTuning kTuning, bool kCapped, bool kOrdered>
struct GradientConsumer {
  using Memory = BackwardShared<kDim, kTuning>;
  using Turn = Place<Memory::kStages>;
  static constexpr int kRows = Memory::kRows;
  static constexpr int kScoreCount = kRows / 2;  ///< of a thread
  static constexpr int kConsumers = kGroups * kGroupThreads;
  static constexpr bool kDelayed = kTuning.delayed;

  const BackwardParams& p;
  Memory& shared;
  int step = 0;

  float dk[kDim / 2], dv[kDim / 2];
  float s[kScoreCount], dp[kScoreCount], dq[32];
  std::uint32_t probabilities[kScoreCount / 2], gradients[kScoreCount / 2];

  __device__ __forceinline__ GradientConsumer(const BackwardParams& params, Memory& memory)
      : p(params), shared(memory) {}

  // Found again wherever they are needed: held, they would cost registers that there are not.
  __device__ __forceinline__ static int thread() { return thread_again() - kGroupThreads; }
  __device__ __forceinline__ static int lane() { return thread_again() % 32; }
  __device__ __forceinline__ static int group() { return thread() / kGroupThreads; }
  __device__ __forceinline__ static int warp() { return thread() / 32; }
  __device__ __forceinline__ static int key() { return 16 * warp(); }  ///< the warp's first

  __device__ __forceinline__ unsigned char* scores() const {
    return shared.ds[step % Memory::kScores];
  }
  __device__ __forceinline__ void reach(Phase phase) const {
    mark<kTuning.traced>(shared.trace, thread(), phase);
  }

  /// A warp is done with what `barrier` guards.
  __device__ __forceinline__ void release(std::uint64_t* barrier) const {
    if (lane() == 0) arrive(barrier);
  }

  /// All consumers: rows from `rows` on of a matrix become 0.
  template <int kHeight>
  __device__ __forceinline__ void clear_rows(unsigned char* matrix, int rows) const {
    constexpr int kChunks = kDim / 8;
#pragma unroll 1
    for (int i = rows * kChunks + thread(); i < kHeight * kChunks; i += kConsumers) {
      store_shared16(shared_address(matrix) + place_in_matrix(kHeight, i / kChunks, i % kChunks),
                     make_uint4(0, 0, 0, 0));
    }
  }
  __device__ __forceinline__ void finish_clearing() const {
    fence_async_shared();
    barrier_wait(kTailBarrier, kConsumers);
  }

  /// The warpgroup's keys times the rows of the step.
  __device__ __forceinline__ void multiply_rows(float (&d)[kScoreCount], const unsigned char* keys,
                                                const unsigned char* rows) const {
    const Matrix a = along_rows(shared_address(keys) +
                                static_cast<std::uint32_t>(group() * kGroupRows * kRowBytes));
    const Matrix b = along_rows(shared_address(rows));
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      multiply(d, a.at(step_along_rows(k, kTileKeys)), b.at(step_along_rows(k, kRows)), k > 0, T());
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
      multiply_add(sum, scores + 4 * k, b.at(step_across_rows(k)), T());
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
    constexpr std::uint32_t kBlock = kTileKeys * kRowBytes;
    const auto half = static_cast<std::uint32_t>(group()) * kBlock;
    const Matrix a = across_rows(shared_address(ds) + (kRows > 64 ? half : 0), kTileKeys);
    const Matrix b = across_rows(shared_address(shared.k) + (kDim > 64 ? half : 0), kTileKeys);
    drop(dq);
    fence_products();
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k) {
      multiply_across(dq, a.at(step_across_rows(k)), b.at(step_across_rows(k)), k > 0, T());
    }
    commit_products();
  }

  /// Scores and slopes of rows behind the step's are of no account: they are hidden. Q and dO of
  /// those rows are not, in dK and dV.
  __device__ __forceinline__ void clear_tails(const Turn& at) const {
    const int rows = shared.steps[at.index].rows;
    if (rows == kRows) return;
    clear_rows<kRows>(shared.q[at.index], rows);
    clear_rows<kRows>(shared.dout[at.index], rows);
    finish_clearing();
  }

  /// From S^T and dP^T, which are under way, to P and dS in registers, and dV under way. Half of dV
  /// is started before the other half of dS is computed; all of it, and P would be there twice.
  __device__ __forceinline__ void find_scores(const Turn& at) {
    constexpr int kLater = kDelayed ? 1 : 0;  // groups of products behind dP: dK of the last step
    constexpr int kColumns = kScoreCount / 4;
    const bool masked = shared.steps[at.index].masked != 0;
    const std::uint16_t* const seen = shared.seen[at.index][warp()];
    const float* const lse = shared.lse[at.index];
    const float* const delta = shared.delta[at.index];
    if constexpr (kCapped) {
      wait_products<kLater>(s);
      hold(dp);
    } else {
      wait_products<kLater + 1>(s);
      reach(Phase::scores);
      find_probabilities<kColumns>(s, lse, shared.factors.to_exponent, lane(), 0);
      // NOTE: the branch also keeps ptxas from moving the wait for dP before the exponentials.
      if (masked) hide<kColumns>(s, seen, lane(), 0);
      wait_products<kLater>(dp);
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
    if constexpr (kDelayed) {
      await_products<2>();  // all but dV: dK of the last step has read dS
      barrier_wait(kReadBarrier + group(), kConsumers);
    }
    store_packs(shared_address(scores()), key(), lane(), gradients);
    fence_async_shared();
    reach(Phase::exchange);
    // Both halves of dS are there; where there are two buffers, the last one is read.
    barrier_wait(kScoresBarrier, kConsumers);
    reach(Phase::meeting);
  }

  /// Adds the warpgroup's part of dQ, while products are under way.
  __device__ __forceinline__ void add_step(const Turn& at) {
    const QueryStep& now = shared.steps[at.index];
    const int row = key() % kGroupRows + (kRows > 64 ? kGroupRows * group() : 0);
    const int column = kDim > 64 ? 64 * group() : 0;
    const float scale = shared.factors.scale;
    reach(Phase::dq);
    if constexpr (Memory::kStaged) {
      wait(&shared.dq_empty, Place<1>(step).empty);
      if constexpr (Memory::kBoxes) {
        stage_boxes<kRows>(reinterpret_cast<unsigned char*>(shared.dq), column, row, lane(), scale,
                           dq);
      } else {
        stage_dq(shared.dq[0] + column, Memory::kStagedWidth, row, lane(), scale, dq);
      }
      __syncwarp();
      release(&shared.dq_full);
    } else {
      if constexpr (kOrdered) wait(&shared.turn_come[at.index], at.full);
      if constexpr (kTuning.additions == Additions::rows) {
        add_dq(now.dq + column, now.stride, row, now.rows, lane(), scale, dq);
      }
      if constexpr (kOrdered) {
        __syncwarp();
        release(&shared.added[at.index]);
      }
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
    if (count < kTileKeys) {
      clear_rows<kTileKeys>(shared.k, count);
      finish_clearing();
    }
    wait(&shared.v_full, keys.full);
    reach(Phase::item);
  }

  /// From S, which is under way, to dQ; dK is then under way.
  __device__ __forceinline__ void find_products(const Turn& at) {
    start_slopes(at);
    exchange_scores(at);
    start_dq(scores());
    if constexpr (kTuning.ahead) {
      start_dk(at);
    } else {
      add_rows<kRows / 16>(dk, gradients, shared.q[at.index], 0);
    }
    wait_products<1>(dq);
  }

  /// Q and dO of the step are read.
  __device__ __forceinline__ void leave_step(const Turn& at) {
    hold(dv);
    __syncwarp();  // all lanes have read what the step says
    release(&shared.empty[at.index]);
    reach(Phase::done);
  }

  /// All steps of an item, which has some; one after another.
  __device__ __forceinline__ void stream_rows() {
    for (bool more = true; more; ++step) {
      const Turn at(step);
      start_scores(at);
      find_products(at);
      add_step(at);
      more = shared.steps[at.index].last == 0;
      wait_products<0>(dk);
      leave_step(at);
    }
  }

  /// The same, but S of the next step starts behind dK as soon as dQ is there: tensor cores have it
  /// to do while dQ leaves. dS then comes from shared memory for dK too, for ptxas would serialise
  /// products that read registers behind others (C7512); its two buffers last until dK is awaited.
  __device__ __forceinline__ void stream_ahead() {
    start_scores(Turn(step));
    for (;; ++step) {
      const Turn at(step);
      find_products(at);
      if (shared.steps[at.index].last != 0) break;
      start_scores(Turn(step + 1));
      add_step(at);
      wait_products<1>(dk);
      leave_step(at);
    }
    const Turn at(step);
    add_step(at);
    wait_products<0>(dk);
    leave_step(at);
    ++step;
  }

  /// dK += dS^T Q, with dS from shared memory.
  __device__ __forceinline__ void start_dk(const Turn& at) {
    const Matrix a = along_rows(shared_address(scores()) +
                                static_cast<std::uint32_t>(group() * kGroupRows * kRowBytes));
    const Matrix b = across_rows(shared_address(shared.q[at.index]), kRows);
    fence_products();
#pragma unroll
    for (int k = 0; k < kRows / 16; ++k) {
      multiply_rows_across(dk, a.at(step_along_rows(k, kTileKeys)), b.at(step_across_rows(k)), T());
    }
    commit_products();
  }

  /// Steps that overlap. In the order of products: dQ of this step, S and dP of the next, then dK
  /// of this one, under which P and dS of the next are found. There is one buffer of dS: it is free
  /// when both warpgroups have read it for dQ, and each its part for dK.
  __device__ __forceinline__ void stream_delayed() {
    const int first = step;
    hold(dk);  // 0 before products begin: ptxas would else serialise them
    hold(dv);
    start_scores(Turn(step));
    start_slopes(Turn(step));
    wait_products<0>(s);  // as no dK is behind them
    hold(dp);
    for (;; ++step) {
      const Turn at(step);
      exchange_scores(at);
      start_dq(scores());
      // NOTE: S of the next step may not start before this: ptxas would serialise all products.
      wait_products<0>(dq);
      hold(dv);
      hold(dk);
      barrier_arrive(kReadBarrier + 1 - group(), kConsumers);
      if (step > first) release(&shared.empty[Turn(step - 1).index]);
      if (shared.steps[at.index].last != 0) break;
      const Turn next(step + 1);
      start_scores(next);
      add_step(at);
      start_slopes(next);
      start_dk(at);
      reach(Phase::done);
    }
    const Turn at(step);
    add_step(at);
    start_dk(at);
    wait_products<0>(dk);
    __syncwarp();  // all lanes have read what the step says
    release(&shared.empty[at.index]);
    ++step;
  }

  __device__ __forceinline__ void store(const KeyRows& to) const {
    store_keys<kDim>(to.dk, p.dk.token_stride, key(), to.keys, lane(), shared.factors.scale,
                     p.dkv_assign, dk);
    store_keys<kDim>(to.dv, p.dv.token_stride, key(), to.keys, lane(), 1.0F, p.dkv_assign, dv);
    if (p.done == nullptr) return;
    barrier_wait(kScoresBarrier, kConsumers);  // both warpgroups have written
    if (threadIdx.x == kGroupThreads) add_release_system(p.done + to.kv_head);
  }

  __device__ __forceinline__ void run() {
    if constexpr (kDelayed) barrier_arrive(kReadBarrier + 1 - group(), kConsumers);
    for (int n = 0;; ++n) {
      const Turn at(step);
      wait(&shared.q_full[at.index], at.full);
      if (shared.steps[at.index].rows == 0) return;
      start_item(n);
      if constexpr (kDelayed) {
        stream_delayed();
      } else if constexpr (kTuning.ahead) {
        stream_ahead();
      } else {
        stream_rows();
      }
      release(&shared.keys_empty);
      store(shared.items[n & 1]);
    }
  }
};

/// All of a block; `memory`: sizeof(BackwardShared<kDim, kTuning>), 1024-byte aligned.
template <typename T, int kDim, BackwardTuning kTuning, bool kCapped, bool kOrdered>
__device__ __forceinline__ void run_backward_block(const cuda::Geometry& g, const BackwardParams& p,
                                                   const BackwardMaps& maps,
                                                   const KeySchedule& schedule, int* turns,
                                                   unsigned char* memory) {
  using Memory = BackwardShared<kDim, kTuning>;
  auto& shared = *reinterpret_cast<Memory*>(memory);
  if (threadIdx.x == 0) init_backward(shared, g, kOrdered);
  __syncthreads();
  if (threadIdx.x < kGroupThreads) {
    give_registers<kTuning.loader_registers>();
    if (threadIdx.x < 32) {
      QueryLoader<kDim, kTuning, kOrdered>(g, p, maps, schedule, turns, shared).run();
    } else if (Memory::kStaged && threadIdx.x / 32 == kTurnWarp) {
      QueryAdder<kDim, kTuning, kOrdered>(g, maps, shared).run();
    } else if (kOrdered && threadIdx.x == 32 * kTurnWarp) {
      TurnKeeper<Memory>(g, shared).run();
    }
  } else {
    take_registers<kTuning.consumer_registers>();
    GradientConsumer<T, kDim, kTuning, kCapped, kOrdered>(p, shared).run();
    if (kTuning.traced && blockIdx.x == 0 && threadIdx.x == kGroupThreads) {
      write_trace(shared.trace, g.flops);
    }
  }
}

}  // namespace annulus::attn::sm90
