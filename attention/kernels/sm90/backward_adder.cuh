#pragma once

#include "attention/kernels/sm90/backward_shared.cuh"
#include "attention/kernels/sm90/backward_turns.cuh"

// One warp beside the loader that has the copy engine add dQ to memory, 32 columns of all rows of a
// step at a time, once the consumers have left it in shared memory, in one round or several; in
// turns where the launch is deterministic. Rows that the step lacks are zero, and change nothing.
namespace annulus::attn::sm90 {

template <typename Memory, bool kOrdered>
struct QueryAdder {
  const cuda::Geometry& g;
  const BackwardMaps& maps;
  Memory& shared;

  __device__ __forceinline__ QueryAdder(const cuda::Geometry& geometry,
                                        const BackwardMaps& tensor_maps, Memory& memory)
      : g(geometry), maps(tensor_maps), shared(memory) {}

  /// Lane i starts box i.
  __device__ __forceinline__ void start(const QueryStep& now, int round, int lane) const {
    if (lane >= Memory::kBoxes) return;
    constexpr int kPart = Memory::Across::kPart;
    const int first = 32 * (lane % Memory::kPartBoxes + round * Memory::kPartBoxes);
    if (first >= kPart) return;
    const auto from =
        shared_address(shared.dq) + static_cast<std::uint32_t>(lane * Memory::kBoxBytes);
    add_box(maps.dq, from, lane / Memory::kPartBoxes * kPart + first, now.token, now.head,
            now.batch);
  }

  /// What lies in shared memory may be overwritten after this, and is in memory if turns count.
  __device__ __forceinline__ void add(const QueryStep& now, int round, int lane) const {
    const Turns<Memory> turns(g, shared);
    if (kOrdered && round == 0 && lane == 0) turns.await(now.counter, now.turn);
    __syncwarp();
    start(now, round, lane);
    commit_additions();
    if (kOrdered && round + 1 == Memory::kRounds) {
      await_additions();
      __syncwarp();
      if (lane == 0) turns.pass(now);
    } else {
      await_additions_read();
      __syncwarp();
    }
  }

  __device__ __forceinline__ void run() const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int step = 0;; ++step) {
      const Place<Memory::kStages> at(step);
      wait(&shared.q_full[at.index], at.full);
      const QueryStep now = shared.steps[at.index];
      __syncwarp();
      // Before the addition: the step's Q and dO are not to wait for it.
      if (lane == 0) arrive(&shared.empty[at.index]);
      if (now.rows == 0) break;
#pragma unroll
      for (int round = 0; round < Memory::kRounds; ++round) {
        wait(&shared.dq_full, Place<1>(step * Memory::kRounds + round).full);
        add(now, round, lane);
        if (lane == 0) arrive(&shared.dq_empty);
      }
    }
    await_additions();
  }
};

}  // namespace annulus::attn::sm90
