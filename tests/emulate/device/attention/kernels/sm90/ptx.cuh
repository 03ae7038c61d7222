#pragma once

#include "runtime/base/dtype.h"
#include "tests/emulate/copies.h"
#include "tests/emulate/machine.h"

#include <cuda.h>

#include <cmath>
#include <cstdint>
#include <cstring>

// attention/kernels/sm90/ptx.cuh for the host: the same functions on an emulated block.
namespace annulus::attn::sm90 {

inline emulate::Machine& machine() { return emulate::Machine::current(); }

inline std::uint32_t shared_address(const void* pointer) { return machine().address_of(pointer); }

inline void prefetch(const void* /*pointer*/) {}
inline void prefetch_to_l2(const void*) {}

inline void init_barrier(std::uint64_t* barrier, int arrivals) {
  machine().init(barrier, arrivals);
}
inline void fence_barrier_init() {}
inline void arrive(std::uint64_t* barrier) { machine().arrive(barrier, 0); }
inline void arrive_expecting(std::uint64_t* barrier, std::uint32_t bytes) {
  machine().arrive(barrier, bytes);
}
inline void wait(std::uint64_t* barrier, std::uint32_t parity) { machine().await(barrier, parity); }

inline bool is_over(std::uint64_t* barrier, std::uint32_t parity) {
  return machine().is_over(barrier, parity);
}

inline void prefetch_map(const CUtensorMap& /*map*/) {}
inline void copy_box(std::uint32_t to, const CUtensorMap& map, std::uint64_t* barrier, int c0,
                     int c1, int c2, int c3) {
  emulate::copy_box(to, map, barrier, c0, c1, c2, c3);
}

inline void copy16(std::uint32_t to, const void* from, bool real) {
  emulate::copy16(to, from, real);
}
inline void wait_copies() { emulate::wait_copies(); }

inline void store_shared(std::uint32_t to, std::uint32_t value) {
  std::memcpy(machine().at(to, 4), &value, 4);
  machine().written(to);
}
inline void store_shared16(std::uint32_t to, uint4 value) {
  std::memcpy(machine().at(to, 16), &value, 16);
  machine().written(to);
}
inline uint4 load_shared16(std::uint32_t from) {
  uint4 value;
  std::memcpy(&value, machine().at(from, 16), 16);
  return value;
}

inline void store_shared(float* to, float2 v) {
  std::memcpy(to, &v, 8);
  machine().written(shared_address(to));
}

inline void store_matrices(std::uint32_t to, const std::uint32_t* packs) {
  const int lane = machine().thread() % 32;
  for (int i = 0; i < 4; ++i) {
    const auto row = static_cast<std::uint32_t>(machine().exchange(to, 8 * i + lane / 4));
    store_shared(row + 4 * static_cast<std::uint32_t>(lane % 4), packs[i]);
  }
}
inline void store_turned(std::uint32_t to, const std::uint32_t* packs) {
  const int lane = machine().thread() % 32;
  for (int i = 0; i < 4; ++i) {
    for (int e = 0; e < 2; ++e) {
      const auto column =
          static_cast<std::uint32_t>(machine().exchange(to, 8 * i + 2 * (lane % 4) + e)) +
          2 * static_cast<std::uint32_t>(lane / 4);
      const auto half = static_cast<std::uint16_t>(packs[i] >> (16 * e));
      std::memcpy(machine().at(column, 2), &half, 2);
      machine().written(column);
    }
  }
}
inline void add_box(const CUtensorMap& map, std::uint32_t from, int c0, int c1, int c2, int c3) {
  emulate::add_box(map, from, c0, c1, c2, c3);
}
inline void commit_additions() {}
inline void await_additions_read() { emulate::await_additions(); }
inline void await_additions() { emulate::await_additions(); }

inline void fence_async_shared() { machine().fence(); }
inline void fence_async_global() {}

inline void barrier_wait(int id, int threads) { machine().barrier(id, threads, true); }
inline void barrier_arrive(int id, int threads) { machine().barrier(id, threads, false); }

inline void forget(std::uint32_t& /*x*/) {}
inline int of_warp(int x) { return __shfl_sync(0xffffffffU, x, 0); }
inline bool elect_one() { return machine().thread() % 32 == 0; }
inline int thread_again() { return machine().thread(); }

template <int kCount>
inline void take_registers() {
  static_assert(kCount % 8 == 0 && kCount >= 24 && kCount <= 256);
}
template <int kCount>
inline void give_registers() {
  static_assert(kCount % 8 == 0 && kCount >= 24 && kCount <= 256);
}

inline void finish_before(float x) {
  (void)machine().exchange(0, 0);  // a vote of the warp
  if (x < 0.0F) machine().misuse("a sum of probabilities is negative");
}

inline std::uint32_t clock_now() { return 0; }
/// A nanosecond for each look at all threads.
inline std::uint32_t nanoseconds_now() {
  return static_cast<std::uint32_t>(machine().passes()) | 1U;
}

inline void let_next_kernel_start() {}
inline void await_kernel_before() {}

inline std::uint32_t load_acquire_system(const std::uint32_t* flag) {
  return *static_cast<const volatile std::uint32_t*>(flag);
}
inline void add_release_system(std::uint32_t* counter) { ++*counter; }
inline void pause() { machine().rest(); }
inline void pause_shortly() { machine().rest(); }

inline int load_acquire(const int* counter) { return *static_cast<const volatile int*>(counter); }
inline void store_release(int* counter, int value) {
  if (value != *counter + 1) machine().misuse("a turn is passed on out of turn");
  *counter = value;
}
inline void fence_device() {}

inline std::uint32_t packed(std::uint16_t low, std::uint16_t high) {
  return low | static_cast<std::uint32_t>(high) << 16;
}
struct Bf16 {};
struct Half {};
inline std::uint32_t pack(float low, float high, Bf16 /*type*/) {
  return packed(f32_to_bf16(low), f32_to_bf16(high));
}
inline std::uint32_t pack(float low, float high, Half /*type*/) {
  return packed(f32_to_f16(low), f32_to_f16(high));
}

inline float exp2_fast(float x) { return std::exp2(x); }

}  // namespace annulus::attn::sm90
