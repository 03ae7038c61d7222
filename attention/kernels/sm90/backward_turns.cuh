#pragma once

#include "attention/kernels/sm90/backward_shared.cuh"

// Turns of a deterministic launch: memory says when the block may add a step's dQ, and the turn is
// passed on when that is in memory. What was added is ordered before the counter by the wait for
// the copy engine and the fence of the thread that passes.
namespace annulus::attn::sm90 {

template <typename Memory>
struct Turns {
  const cuda::Geometry& g;
  Memory& shared;

  __device__ __forceinline__ Turns(const cuda::Geometry& geometry, Memory& memory)
      : g(geometry), shared(memory) {}

  /// After an abort nobody waits: what is under way runs to its end, with void results.
  __device__ __forceinline__ void await(const int* counter, int turn) const {
    if (shared.aborted != 0) return;
    for (int spins = 0; load_acquire(counter) != turn; ++spins) {
      if ((spins & 63) == 63 && g.abort != nullptr && load_acquire_system(g.abort) != 0) {
        *static_cast<volatile std::uint16_t*>(&shared.aborted) = 1;
        return;
      }
      pause_shortly();
    }
  }

  __device__ __forceinline__ void pass(const QueryStep& now) const {
    if (shared.aborted != 0) return;
    fence_device();
    for (int i = 0; i < now.passes; ++i) {
      if (i > 0) await(now.counter + i, now.turn);
      store_release(now.counter + i, now.turn + 1);
    }
  }
};

}  // namespace annulus::attn::sm90
