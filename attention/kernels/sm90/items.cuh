#pragma once

#include "attention/kernels/sm90/shared.cuh"

// What consumers of the forward ask of items, and of each other.
namespace annulus::attn::sm90 {

/// What consumers ask of items.
template <typename Memory>
struct ItemsOf {
  Memory& shared;

  __device__ __forceinline__ const Item& at(int n) const {
    return shared.items[n % Memory::kItems];
  }
  __device__ __forceinline__ unsigned char* queries(int n, int group) const {
    return shared.q[n % Memory::kQueries][group];
  }
  /// Waits until item n is said: is there one?
  __device__ __forceinline__ bool is_there(int n) const {
    const Place<Memory::kItems> place(n);
    wait(&shared.item_full[place.index], place.full);
    const QueryTile& tile = shared.items[place.index].tile;
    return tile.begin != tile.end;
  }
  __device__ __forceinline__ bool are_queries_there(int n) const {
    const Place<Memory::kQueries> place(n);
    return is_over(&shared.q_full[place.index], place.full);
  }
  __device__ __forceinline__ void await_queries(int n) const {
    const Place<Memory::kQueries> place(n);
    wait(&shared.q_full[place.index], place.full);
  }
};

/// Turns go round, each from one warpgroup to the next: who starts products.
template <Tuning kTuning>
struct ProductTurns {
  __device__ __forceinline__ static void await(int group) {
    if (kTuning.turns) barrier_wait(kTurnBarrier + group, 2 * kGroupThreads);
  }
  __device__ __forceinline__ static void pass(int group) {
    if (!kTuning.turns) return;
    const int after = group + 1 == kTuning.groups ? 0 : group + 1;
    barrier_arrive(kTurnBarrier + after, 2 * kGroupThreads);
  }
};

}  // namespace annulus::attn::sm90
