#pragma once

#include "attention/kernels/sm90/backward_shared.cuh"
#include "attention/kernels/sm90/backward_turns.cuh"

// One warp beside the loader that has the copy engine add dQ to memory, 32 columns and kBoxRows
// rows at a time, once a warpgroup has left it in shared memory, in one round or several; in turns
// where the launch is deterministic. Rows that the step lacks are zero, and change nothing.
namespace annulus::attn::sm90 {

template <typename Memory, bool kOrdered>
struct QueryAdder {
  const cuda::Geometry& g;
  const BackwardMaps& maps;
  Memory& shared;
  int first, last;  ///< warpgroups whose dQ it adds

  __device__ __forceinline__ QueryAdder(const cuda::Geometry& geometry,
                                        const BackwardMaps& tensor_maps, Memory& memory, int warp)
      : g(geometry),
        maps(tensor_maps),
        shared(memory),
        first(warp - kAdderWarp),
        last(kOrdered ? Memory::kGroups : first + 1) {}

  /// Lane i starts box i of a warpgroup's.
  __device__ __forceinline__ void start(const QueryStep& now, int round, int group,
                                        int lane) const {
    if (lane >= 2) return;
    constexpr bool kByRows = Memory::kRows > kBoxRows;  // warpgroups have rows, not columns
    constexpr int kPart = kByRows ? Memory::kDim : Memory::kWide ? Memory::Across::kPart : 64;
    const int column = 32 * lane + 64 * round;
    const int at = kByRows ? column : column + kPart * group;
    if (column >= kPart || at >= Memory::kDim) return;
    const auto from =
        shared_address(shared.dq[group]) + static_cast<std::uint32_t>(lane * Memory::kBoxBytes);
    add_box(maps.dq, from, at, now.token + (kByRows ? kBoxRows * group : 0), now.head, now.batch);
  }

  /// What lies in shared memory may be overwritten after this, and is in memory if it is the last
  /// of a step and turns count.
  __device__ __forceinline__ void add(const QueryStep& now, int round, int group, int lane) const {
    const Turns<Memory> turns(g, shared);
    if (kOrdered && round + group == 0 && lane == 0) turns.await(now.counter, now.turn);
    __syncwarp();
    start(now, round, group, lane);
    commit_additions();
    if (kOrdered && round + group + 1 == Memory::kRounds + Memory::kGroups - 1) {
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
      wait(&shared.dq_full[first], Place<1>(step * Memory::kRounds).full);
      const QueryStep now = shared.steps[step % kSaid];
      __syncwarp();
      if (now.rows == 0) break;
#pragma unroll
      for (int round = 0; round < Memory::kRounds; ++round) {
        for (int group = first; group < last; ++group) {
          wait(&shared.dq_full[group], Place<1>(step * Memory::kRounds + round).full);
          add(now, round, group, lane);
          if (lane == 0) arrive(&shared.dq_empty[group]);
        }
      }
    }
    await_additions();
  }
};

}  // namespace annulus::attn::sm90
