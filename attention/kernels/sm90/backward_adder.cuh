#pragma once

#include "attention/kernels/sm90/backward_shared.cuh"
#include "attention/kernels/sm90/backward_turns.cuh"

// One warp beside the loader that has the copy engine add dQ to memory, a row or 32 columns of all
// rows at a time, once the consumers have left it in shared memory; in turns where the launch is
// deterministic. Of boxes rows that the step lacks are zero, and change nothing.
namespace annulus::attn::sm90 {

template <int kDim, BackwardTuning kTuning, bool kOrdered>
struct QueryAdder {
  using Memory = BackwardShared<kDim, kTuning>;
  const cuda::Geometry& g;
  const BackwardMaps& maps;
  Memory& shared;

  __device__ __forceinline__ QueryAdder(const cuda::Geometry& geometry,
                                        const BackwardMaps& tensor_maps, Memory& memory)
      : g(geometry), maps(tensor_maps), shared(memory) {}

  /// Lane i starts box i.
  __device__ __forceinline__ void add_boxes(const QueryStep& now, int lane) const {
    if (lane >= kDim / 32) return;
    const auto from =
        shared_address(shared.dq) + static_cast<std::uint32_t>(lane * Memory::kRows * kRowBytes);
    add_box(maps.dq, from, 32 * lane, now.token, now.head, now.batch);
  }

  /// The same bytes to where the step's tokens of all heads lie, as if a head's were together
  /// there.
  __device__ __forceinline__ void add_dense(const QueryStep& now, int lane) const {
    constexpr int kFloats = 32 * Memory::kRows;
    if (lane >= kDim / 32) return;
    const auto from = shared_address(shared.dq) + static_cast<std::uint32_t>(lane * kFloats * 4);
    add_copied(now.dq + now.head * (Memory::kRows - 1) * kDim + lane * kFloats, from, kFloats * 4);
  }

  /// What lies in shared memory may be overwritten after this, and is in memory if turns count.
  __device__ __forceinline__ void add(const QueryStep& now, int lane) const {
    const TurnKeeper<Memory> turns(g, shared);
    if (kOrdered && lane == 0) turns.await(now.counter, now.turn);
    __syncwarp();
    if constexpr (Memory::kDense) {
      add_dense(now, lane);
    } else if constexpr (Memory::kBoxes) {
      add_boxes(now, lane);
    } else {
#pragma unroll 1
      for (int r = lane; r < now.rows; r += 32) {
        add_copied(now.dq + r * now.stride, shared_address(shared.dq[r]), kDim * 4);
      }
    }
    commit_additions();
    if constexpr (kOrdered) {
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
      const Place<1> staged(step);
      wait(&shared.q_full[at.index], at.full);
      const QueryStep now = shared.steps[at.index];
      __syncwarp();
      // Before the addition: the step's Q and dO are not to wait for it.
      if (lane == 0) arrive(&shared.empty[at.index]);
      if (now.rows == 0) break;
      wait(&shared.dq_full, staged.full);
      add(now, lane);
      if (lane == 0) arrive(&shared.dq_empty);
    }
    await_additions();
  }
};

}  // namespace annulus::attn::sm90
