#pragma once

#include "attention/kernels/sm90/backward_shared.cuh"

#include <cstdint>

// What all kinds of consumers (backward.cuh, backward_turned.cuh, backward_wide.cuh) have: where a
// thread stands, and what lies behind the tails of tiles.
namespace annulus::attn::sm90 {

template <typename Shared>
struct ConsumerBase {
  using Memory = Shared;
  using Turn = Place<Memory::kStages>;

  const BackwardParams& p;
  const Factors& factors;
  Memory& shared;
  int step = 0;

  __device__ __forceinline__ ConsumerBase(const BackwardParams& params, const Factors& of_scores,
                                          Memory& memory)
      : p(params), factors(of_scores), shared(memory) {}

  // Found again wherever they are needed: held, they would cost registers that there are not.
  __device__ __forceinline__ static int thread() { return thread_again() - kGroupThreads; }
  __device__ __forceinline__ static int lane() { return thread_again() % 32; }
  __device__ __forceinline__ static int group() { return thread() / kGroupThreads; }
  __device__ __forceinline__ static int warp() { return thread() / 32; }

  __device__ __forceinline__ void reach(Phase phase) const {
    mark<Memory::kTuning.traced>(shared.trace, thread(), phase);
  }

  /// What the loader says of the step.
  __device__ __forceinline__ const QueryStep& said() const { return shared.steps[step % kSaid]; }

  /// A warp is done with what `barrier` guards: all its lanes.
  __device__ __forceinline__ void release(std::uint64_t* barrier) const {
    __syncwarp();
    if (lane() == 0) arrive(barrier);
  }

  /// All consumers: rows from `rows` on of a matrix become 0.
  template <int kHeight, typename Across>
  __device__ __forceinline__ void clear_rows(unsigned char* matrix, int rows) const {
    constexpr int kChunks = Across::kBlocks * kRowBytes / 16;
#pragma unroll 1
    for (int i = rows * kChunks + thread(); i < kHeight * kChunks; i += Memory::kConsumers) {
      store_shared16(shared_address(matrix) + place_in_matrix(kHeight, i / kChunks, i % kChunks),
                     make_uint4(0, 0, 0, 0));
    }
  }
  __device__ __forceinline__ void clear_keys(int rows) const {
    clear_rows<Memory::kKeys, typename Memory::Across>(shared.k, rows);
  }
  __device__ __forceinline__ void clear_queries(unsigned char* q, unsigned char* dout,
                                                int rows) const {
    clear_rows<Memory::kRows, typename Memory::Across>(q, rows);
    clear_rows<Memory::kRows, typename Memory::AcrossV>(dout, rows);
  }
  __device__ __forceinline__ void finish_clearing() const {
    fence_async_shared();
    barrier_wait(kTailBarrier, Memory::kConsumers);
  }

  /// A step without rows: there are no more, and the adder is to know.
  __device__ __forceinline__ bool at_end() const {
    if (said().rows != 0) return false;
    if (Memory::kTuning.adds) {
      wait(&shared.dq_empty[group()], Place<1>(step * Memory::kRounds).empty);
      release(&shared.dq_full[group()]);
    }
    return true;
  }

  /// All warpgroups have stored the item's gradients.
  __device__ __forceinline__ void say_done(const KeyRows& to) const {
    if (p.done == nullptr) return;
    barrier_wait(kScoresBarrier, Memory::kConsumers);
    if (threadIdx.x == kGroupThreads) add_release_system(p.done + to.kv_head);
  }
};

}  // namespace annulus::attn::sm90
