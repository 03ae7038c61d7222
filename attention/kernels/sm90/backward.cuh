// Attention backward for Hopper (sm_90a), after FlashAttention-3 (Shah et al. 2024). One block an SM
// stays for the whole launch and draws key tiles (128 keys of one key/value head) until none is
// left. Of each it keeps K and V in shared memory, dK and dV in registers, and streams the query
// rows that see it, of every query head of the group: five products a step of 64 (head_dim 128) or
// 128 (64) rows.
//
//   warps      warpgroup 0: the loader, one warp (backward_loader.cuh), and one thread that keeps
//              turns where the launch is deterministic (backward_turns.cuh). 40 registers a thread.
//              warpgroups 1, 2: consumers of 64 keys each, 232 registers.
//   products   S^T = K Q^T and dP^T = V dO^T from shared memory, 64 keys by the rows of the step;
//              dV += P^T dO and dK += dS^T Q with P^T and dS^T from registers, where the layout of
//              a product is that of a left operand; dQ = dS K from shared memory, of both
//              warpgroups' dS: each computes half of it, 64 rows by 64 columns, and adds it to
//              memory from registers (red.v4, 128 bytes of a row at a time).
//   overlap    exponentials run under dP^T, dS under dV, the exchange of dS under dK, the additions
//              of dQ under S^T of the next step, which is started before dQ is waited for
//   shared     K, V; Q, dO, numbers and masks of the rows [3 stages]; dS [2], so that one barrier a
//              step is enough (backward_shared.cuh): 202 KB at head_dim 128, 210 at 64
//   tails      what lies behind a tile is read with it and cleared by the consumers (0 times what
//              is not finite is no 0): rows of K once an item, of Q and dO in steps of fewer rows
//   limits     f16, bf16; head_dim = head_dim_v = 64 or 128; 16-byte aligned rows; tiles of at most
//              128 x 128; softmax_scale > 0; key_tokens and query_tokens known (setup.h)
#pragma once

#include "attention/kernels/sm90/backward_loader.cuh"
#include "attention/kernels/sm90/backward_rows.cuh"
#include "attention/kernels/sm90/backward_scores.cuh"
#include "attention/kernels/sm90/backward_turns.cuh"
#include "attention/kernels/sm90/wgmma.cuh"

namespace annulus::attn::sm90 {

/// One thread of a consumer warpgroup.
template <typename T, int kDim, bool kCapped, bool kOrdered>
struct GradientConsumer {
  using Memory = BackwardShared<kDim>;
  using Turn = Place<Memory::kStages>;
  static constexpr int kRows = Memory::kRows;
  static constexpr int kScoreCount = kRows / 2;  ///< of a thread
  /// dV is started before dS is computed: P is then in registers twice, and the slope of a cap
  /// would be.
  static constexpr bool kEarlyValues = kRows == 64 && !kCapped;
  static constexpr int kConsumers = kGroups * kGroupThreads;

  const cuda::Geometry& g;
  const BackwardParams& p;
  Memory& shared;
  int group, thread, lane, key;  ///< key: the first of the warp's 16
  float scale;                   ///< what takes a score (softcap applied) to exponents of 2
  int step = 0;

  float dk[kDim / 2], dv[kDim / 2];
  float s[kScoreCount], dp[kScoreCount], dq[32];
  std::uint32_t probabilities[kScoreCount / 2], gradients[kScoreCount / 2];

  __device__ __forceinline__ GradientConsumer(const cuda::Geometry& geometry,
                                              const BackwardParams& params, Memory& memory)
      : g(geometry),
        p(params),
        shared(memory),
        group(static_cast<int>(threadIdx.x) / kGroupThreads - 1),
        thread(static_cast<int>(threadIdx.x) - kGroupThreads),
        lane(static_cast<int>(threadIdx.x) % 32),
        key(thread / 32 * 16),
        scale(kCapped ? cuda::kLog2E : static_cast<float>(geometry.softmax_scale) * cuda::kLog2E) {}

  /// A warp is done with what `barrier` guards.
  __device__ __forceinline__ void release(std::uint64_t* barrier) const {
    if (lane == 0) arrive(barrier);
  }

  /// All consumers: rows from `rows` on of a matrix become 0.
  template <int kHeight>
  __device__ __forceinline__ void clear_rows(unsigned char* matrix, int rows) const {
    constexpr int kChunks = kDim / 8;
#pragma unroll 1
    for (int i = rows * kChunks + thread; i < kHeight * kChunks; i += kConsumers) {
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
                                static_cast<std::uint32_t>(group * kGroupRows * kRowBytes));
    const Matrix b = along_rows(shared_address(rows));
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      multiply(d, a.at(step_along_rows(k, kTileKeys)), b.at(step_along_rows(k, kRows)), k > 0, T());
    }
  }

  /// sum += scores^T rows.
  __device__ __forceinline__ void add_rows(float (&sum)[kDim / 2],
                                           const std::uint32_t (&scores)[kScoreCount / 2],
                                           const unsigned char* rows) const {
    const Matrix b = across_rows(shared_address(rows), kRows);
#pragma unroll
    for (int k = 0; k < kRows / 16; ++k) {
      multiply_add(sum, scores + 4 * k, b.at(step_across_rows(k)), T());
    }
  }

  /// Waits for Q of the step and starts S^T. It must not be the end of the launch.
  __device__ __forceinline__ void start_scores() {
    const Turn at(step);
    wait(&shared.q_full[at.index], at.full);
    const int rows = shared.steps[at.index].rows;
    if (rows < kRows) {
      wait(&shared.dout_full[at.index], at.full);
      clear_rows<kRows>(shared.q[at.index], rows);
      clear_rows<kRows>(shared.dout[at.index], rows);
      finish_clearing();
    }
    fence_products();
    multiply_rows(s, shared.k, shared.q[at.index]);
    commit_products();
  }

  __device__ __forceinline__ void start_values(const unsigned char* dout) {
    fence_products();
    add_rows(dv, probabilities, dout);
    commit_products();
  }

  /// dQ is of all keys, so of both warpgroups' dS.
  __device__ __forceinline__ void start_dq(const unsigned char* ds) {
    constexpr std::uint32_t kBlock = kTileKeys * kRowBytes;
    const auto half = static_cast<std::uint32_t>(group) * kBlock;
    const Matrix a = across_rows(shared_address(ds) + (kRows > 64 ? half : 0), kTileKeys);
    const Matrix b = across_rows(shared_address(shared.k) + (kDim > 64 ? half : 0), kTileKeys);
    fence_products();
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k) {
      multiply_across(dq, a.at(step_across_rows(k)), b.at(step_across_rows(k)), k > 0, T());
    }
    commit_products();
  }

  /// From S^T, which is under way, to P and dS in registers, and dV under way.
  __device__ __forceinline__ void find_scores(const Turn& at) {
    const bool masked = shared.steps[at.index].masked != 0;
    const std::uint16_t* const seen = shared.seen[at.index][thread / 32];
    const float* const lse = shared.lse[at.index];
    const float* const delta = shared.delta[at.index];
    unsigned char* const dout = shared.dout[at.index];
    wait(&shared.dout_full[at.index], at.full);
    fence_products();
    multiply_rows(dp, shared.v, dout);
    commit_products();
    if constexpr (kCapped) {
      wait_products<0>(s);
      hold(dp);
      cap_gradients(g, s, dp, delta, lane);
      find_probabilities(s, lse, scale, lane);
#pragma unroll
      for (int i = 0; i < kScoreCount; ++i) dp[i] *= s[i];
    } else {
      wait_products<1>(s);
      find_probabilities(s, lse, scale, lane);
    }
    if (masked) hide(s, seen, lane);
    if constexpr (kEarlyValues) {
      pack_all<T>(s, probabilities);
      start_values(dout);
      wait_products<1>(dp);
    } else if constexpr (!kCapped) {
      finish_before(s[kScoreCount - 1]);
      wait_products<0>(dp);
    }
    if constexpr (!kCapped) find_gradients(s, dp, delta, lane);
    if (masked) hide(dp, seen, lane);
    if constexpr (!kEarlyValues) {
      pack_all<T>(s, probabilities);
      start_values(dout);
    }
    pack_all<T>(dp, gradients);
  }

  /// From scores to dQ of the step, which is under way then, as are dV and dK.
  __device__ __forceinline__ void start_gradients(const Turn& at) {
    unsigned char* const ds = shared.ds[step & 1];
    find_scores(at);
    store_packs(shared_address(ds), key, lane, gradients);
    fence_products();
    add_rows(dk, gradients, shared.q[at.index]);
    commit_products();
    fence_async_shared();
    barrier_wait(kScoresBarrier, kConsumers);  // both halves of dS are there, and the last is read
    start_dq(ds);
  }

  /// Adds dQ, which is there, and lets go of the step.
  __device__ __forceinline__ void finish_step(const Turn& at) {
    const QueryStep& now = shared.steps[at.index];
    float* const to = now.dq + (kDim > 64 ? 64 * group : 0);
    const int rows = now.rows;
    const int row = thread / 32 % 4 * 16 + (kRows > 64 ? 64 * group : 0);
    __syncwarp();
    release(&shared.empty[at.index]);
    if constexpr (kOrdered) wait(&shared.turn_come[at.index], at.full);
    add_dq(to, p.dq.token_stride, row, rows, lane, static_cast<float>(g.softmax_scale), dq);
    if constexpr (kOrdered) {
      __syncwarp();
      release(&shared.added[at.index]);
    }
  }

  /// All steps of item n, which has some.
  __device__ __forceinline__ void stream_rows(int n) {
    const Place<1> keys(n);
#pragma unroll
    for (int i = 0; i < kDim / 2; ++i) dk[i] = dv[i] = 0.0F;
    wait(&shared.k_full, keys.full);
    const int count = shared.items[n & 1].keys;
    if (count < kTileKeys) {
      clear_rows<kTileKeys>(shared.k, count);
      finish_clearing();
    }
    start_scores();
    wait(&shared.v_full, keys.full);
    for (;;) {
      const Turn at(step);
      start_gradients(at);
      if (shared.steps[at.index].last != 0) break;
      ++step;
      start_scores();
      wait_products<1>(dq);
      finish_step(at);
    }
    wait_products<0>(dq);
    hold(dk);
    hold(dv);
    release(&shared.keys_empty);
    finish_step(Turn(step));
    ++step;
  }

  __device__ __forceinline__ void store(const KeyRows& to) const {
    store_keys<kDim>(to.dk, p.dk.token_stride, key, to.keys, lane,
                     static_cast<float>(g.softmax_scale), p.dkv_assign, dk);
    store_keys<kDim>(to.dv, p.dv.token_stride, key, to.keys, lane, 1.0F, p.dkv_assign, dv);
  }

  __device__ __forceinline__ void run() {
    for (int n = 0;; ++n) {
      const Turn at(step);
      wait(&shared.q_full[at.index], at.full);
      if (shared.steps[at.index].rows == 0) return;
      stream_rows(n);
      store(shared.items[n & 1]);
    }
  }
};

// (40 + 2 * 232) * 128 of 65536 registers.
inline constexpr int kQueryLoaderRegisters = 40;
inline constexpr int kGradientRegisters = 232;

/// All of a block; `memory`: sizeof(BackwardShared<kDim>), 1024-byte aligned.
template <typename T, int kDim, bool kCapped, bool kOrdered>
__device__ __forceinline__ void run_backward_block(const cuda::Geometry& g,
                                                   const BackwardParams& p,
                                                   const BackwardMaps& maps,
                                                   const KeySchedule& schedule, int* turns,
                                                   unsigned char* memory) {
  auto& shared = *reinterpret_cast<BackwardShared<kDim>*>(memory);
  if (threadIdx.x == 0) init_backward(shared, kOrdered);
  __syncthreads();
  if (threadIdx.x < kGroupThreads) {
    give_registers<kQueryLoaderRegisters>();
    if (threadIdx.x < 32) {
      QueryLoader<kDim, kOrdered>(g, p, maps, schedule, turns, shared).run();
    } else if (kOrdered && threadIdx.x == 32 * kTurnWarp) {
      TurnKeeper<kDim>(g, shared).run();
    }
  } else {
    take_registers<kGradientRegisters>();
    GradientConsumer<T, kDim, kCapped, kOrdered>(g, p, shared).run();
  }
}

}  // namespace annulus::attn::sm90
