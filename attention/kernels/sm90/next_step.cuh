#pragma once

#include "attention/kernels/sm90/shared.cuh"

namespace annulus::attn::sm90 {

/// What a consumer thread knows of the step whose K is next. It is asked for while exponentials are
/// computed: loads and tries of barriers wait for all products that were started before them.
template <typename Memory>
struct NextStep {
  bool there = false;  ///< its K is, and what follows is known; else it is to be awaited
  int keys, masked;    ///< as in Step

  __device__ __forceinline__ void look_ahead(Memory& shared, int step) {
    const Place<Memory::kStages> place(step);
    there = is_over(&shared.k_full[place.index], place.full);
    look_up(shared, step);
  }

  /// Waits for K of the step.
  __device__ __forceinline__ void await(Memory& shared, int step) {
    if (there) return;
    const Place<Memory::kStages> place(step);
    wait(&shared.k_full[place.index], place.full);
    look_up(shared, step);
  }

  /// Said of the step, whose K has been awaited: the launch was aborted.
  __device__ __forceinline__ bool aborted() const { return keys == kAborted; }

  /// By a vote: where lanes of a warp may part, descriptors are made in ordinary registers
  /// (finish_before).
  __device__ __forceinline__ bool is_masked() const {
    return __any_sync(0xffffffffU, masked != 0) != 0;
  }

 private:
  __device__ __forceinline__ void look_up(const Memory& shared, int step) {
    const volatile Step& said = shared.steps[step % Memory::kSteps];
    keys = said.keys;
    masked = said.masked;
  }
};

}  // namespace annulus::attn::sm90
