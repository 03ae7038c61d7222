#pragma once

#include "attention/kernels/sm90/backward_shared.cuh"
#include "attention/kernels/sm90/backward_turns.cuh"

// Warps beside the loader that have the copy engine add dQ to memory, 32 columns and kBoxRows rows
// at a time, once a warpgroup has left it in shared memory, in one round or several. Rows that the
// step lacks are zero, and change nothing. Each adder has a warpgroup; but where the launch is
// deterministic, two take steps by turns: until a step's dQ is in memory and the next block told,
// more time goes by than a step has.
namespace annulus::attn::sm90 {

template <typename Memory, bool kOrdered>
struct QueryAdder {
  const cuda::Geometry& g;
  const BackwardMaps& maps;
  Memory& shared;
  int which;  ///< of the adders

  __device__ __forceinline__ QueryAdder(const cuda::Geometry& geometry,
                                        const BackwardMaps& tensor_maps, Memory& memory, int warp)
      : g(geometry), maps(tensor_maps), shared(memory), which(warp - kAdderWarp) {}

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

  /// Has a round of a warpgroup's added; what lies in shared memory may be overwritten after this.
  __device__ __forceinline__ void add(const QueryStep& now, int step, int round, int group,
                                      int lane) const {
    wait(&shared.dq_full[group], Place<1>(step * Memory::kRounds + round).full);
    start(now, round, group, lane);
    commit_additions();
    await_additions_read();
    __syncwarp();
    if (lane == 0) arrive(&shared.dq_empty[group]);
  }

  __device__ __forceinline__ void add_in_turn(const QueryStep& now, int step, int lane) const {
    const Turns<Memory> turns(g, shared);
    if (lane == 0) turns.await(now.counter, now.turn);
    __syncwarp();
#pragma unroll
    for (int round = 0; round < Memory::kRounds; ++round) {
      for (int group = 0; group < Memory::kGroups; ++group) add(now, step, round, group, lane);
    }
    // The next step may be of the same rows, whose turn it then passes on.
    if (now.passes == 0) await_additions();
    __syncwarp();
    if (lane == 0) arrive(&shared.adder_free[(step + 1) % 2]);
    if (now.passes == 0) return;
    await_additions();
    __syncwarp();
    if (lane == 0) turns.pass(now);
  }

  /// Steps number `which`, and every second from there.
  __device__ __forceinline__ void run_in_turn(int lane) const {
    for (int step = which;; step += 2) {
      if (step > 0) {
        wait(&shared.adder_free[which], static_cast<std::uint32_t>((step - 1) / 2) & 1U);
      }
      if (*static_cast<volatile std::uint16_t*>(&shared.ended) != 0) return;
      wait(&shared.dq_full[0], Place<1>(step * Memory::kRounds).full);
      const QueryStep now = shared.steps[step % kSaid];
      __syncwarp();
      if (now.rows != 0) {
        add_in_turn(now, step, lane);
        continue;
      }
      if (lane == 0) {
        *static_cast<volatile std::uint16_t*>(&shared.ended) = 1;
        arrive(&shared.adder_free[1 - which]);
      }
      return;
    }
  }

  __device__ __forceinline__ void run_of_group(int lane) const {
    for (int step = 0;; ++step) {
      wait(&shared.dq_full[which], Place<1>(step * Memory::kRounds).full);
      const QueryStep now = shared.steps[step % kSaid];
      __syncwarp();
      if (now.rows == 0) return;
#pragma unroll
      for (int round = 0; round < Memory::kRounds; ++round) add(now, step, round, which, lane);
    }
  }

  __device__ __forceinline__ void run() const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if constexpr (kOrdered) {
      run_in_turn(lane);
    } else {
      run_of_group(lane);
    }
    await_additions();
  }
};

}  // namespace annulus::attn::sm90
