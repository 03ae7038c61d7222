#pragma once

#include "attention/kernels/sm90/backward_shared.cuh"

// Turns of a deterministic launch, for one thread beside the loader: it knows from memory when the
// block may add a step's dQ, tells the consumers, and passes the turn on when all have added. What
// they added is ordered before the counter by their arrivals and this thread's fence (PTX memory
// model, cumulativity).
namespace annulus::attn::sm90 {

template <typename Memory>
struct TurnKeeper {
  const cuda::Geometry& g;
  Memory& shared;

  __device__ __forceinline__ TurnKeeper(const cuda::Geometry& geometry, Memory& memory)
      : g(geometry), shared(memory) {}

  /// After an abort nobody waits: what is under way runs to its end, with void results.
  __device__ __forceinline__ void await(const int* counter, int turn) const {
    if (shared.aborted != 0) return;
    for (int spins = 0; load_acquire(counter) != turn; ++spins) {
      if ((spins & 63) == 63 && g.abort != nullptr && load_acquire_system(g.abort) != 0) {
        *static_cast<volatile std::uint32_t*>(&shared.aborted) = 1;
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

  __device__ __forceinline__ void run() const {
    for (int step = 0;; ++step) {
      const Place<Memory::kStages> at(step);
      wait(&shared.q_full[at.index], at.full);
      const QueryStep& now = shared.steps[at.index];
      if (now.rows == 0) return;
      await(now.counter, now.turn);
      arrive(&shared.turn_come[at.index]);
      wait(&shared.added[at.index], at.full);
      pass(now);
      arrive(&shared.empty[at.index]);
    }
  }
};

}  // namespace annulus::attn::sm90
