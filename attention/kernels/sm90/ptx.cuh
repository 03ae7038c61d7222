#pragma once

#include <cuda.h>
#include <cuda/ptx>

#include <cstdint>

// Hopper's instructions, one thin function each; wgmma.cuh has the products. tests/emulate/device
// holds the same functions for the host, so that the kernel runs there unchanged. By libcu++'s
// cuda::ptx where it has the instruction, but for arrivals, waits and bulk copies: these take
// generic addresses there, and with them the backward is 3 % slower (docs/notes/08).
namespace annulus::attn::sm90 {

/// The 32-bit address by which instructions name shared memory.
__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// Has memory that will be read come near.
__device__ __forceinline__ void prefetch(const void* pointer) {
  asm volatile("prefetch.L1 [%0];" ::"l"(pointer));
}

__device__ __forceinline__ void prefetch_to_l2(const void* pointer) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(pointer)));
}

/// True of one lane of a whole warp, always the same one: what it alone does compiles to code
/// that need not look for lanes which differ.
__device__ __forceinline__ bool elect_one() {
  std::uint32_t chosen;
  asm volatile(
      "{\n"
      ".reg .pred is;\n"
      "elect.sync _|is, 0xffffffff;\n"
      "selp.u32 %0, 1, 0, is;\n"
      "}\n"
      : "=r"(chosen));
  return chosen != 0;
}

// mbarriers. A barrier's phases have parity 0, 1, 0, ...; of a fresh one, "1" has passed.

__device__ __forceinline__ void init_barrier(std::uint64_t* barrier, int arrivals) {
  ::cuda::ptx::mbarrier_init(barrier, static_cast<std::uint32_t>(arrivals));
}

/// Makes initialised barriers known to the copy engine.
__device__ __forceinline__ void fence_barrier_init() {
  ::cuda::ptx::fence_mbarrier_init(::cuda::ptx::sem_release, ::cuda::ptx::scope_cluster);
}

__device__ __forceinline__ void arrive(std::uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
}

/// Arrives, and has the phase wait for `bytes` of copies too.
__device__ __forceinline__ void arrive_expecting(std::uint64_t* barrier, std::uint32_t bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}

/// Waits until the phase of this parity is over.
__device__ __forceinline__ void wait(std::uint64_t* barrier, std::uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra over;\n"
      "bra again;\n"
      "over:\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

/// Whether the phase of this parity is over: does not wait.
__device__ __forceinline__ bool is_over(std::uint64_t* barrier, std::uint32_t parity) {
  std::uint32_t over;
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
      "selp.u32 %0, 1, 0, done;\n"
      "}\n"
      : "=r"(over)
      : "r"(shared_address(barrier)), "r"(parity)
      : "memory");
  return over != 0;
}

// Bulk tensor copies.

__device__ __forceinline__ void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<std::uint64_t>(&map)) : "memory");
}

/// One box of a map of rank 4 to shared memory, which must be 128-byte aligned; its bytes count for
/// `barrier`. What lies outside of the tensor becomes 0. Coordinates: innermost first.
__device__ __forceinline__ void copy_box(std::uint32_t to, const CUtensorMap& map,
                                         std::uint64_t* barrier, int c0, int c1, int c2, int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
      "l"(reinterpret_cast<std::uint64_t>(&map)), "r"(shared_address(barrier)), "r"(c0), "r"(c1),
      "r"(c2), "r"(c3)
      : "memory");
}

// Ordinary copies and stores.

/// 16 bytes to shared memory without a register; zeroes where not `real`.
__device__ __forceinline__ void copy16(std::uint32_t to, const void* from, bool real) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(real ? 16 : 0)
               : "memory");
}
/// Waits for this thread's copy16.
__device__ __forceinline__ void wait_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

__device__ __forceinline__ void store_shared(std::uint32_t to, std::uint32_t value) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(value) : "memory");
}
__device__ __forceinline__ void store_shared(float* to, float2 v) {
  *reinterpret_cast<float2*>(to) = v;
}
__device__ __forceinline__ void store_shared16(std::uint32_t to, uint4 value) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(value.x), "r"(value.y),
               "r"(value.z), "r"(value.w)
               : "memory");
}
__device__ __forceinline__ uint4 load_shared16(std::uint32_t from) {
  uint4 value;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "r"(from)
               : "memory");
  return value;
}

/// The warp stores four 8 x 8 matrices of packs as products hold them (wgmma.cuh): lane 8 i + r
/// says where row r of matrix i goes, 16 bytes.
__device__ __forceinline__ void store_matrices(std::uint32_t to, const std::uint32_t* packs) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to),
               "r"(packs[0]), "r"(packs[1]), "r"(packs[2]), "r"(packs[3])
               : "memory");
}

/// The same of matrices turned over: lane 8 i + r says where column r of matrix i goes.
__device__ __forceinline__ void store_turned(std::uint32_t to, const std::uint32_t* packs) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to),
               "r"(packs[0]), "r"(packs[1]), "r"(packs[2]), "r"(packs[3])
               : "memory");
}

/// Adds a box of f32 from shared memory to memory, by the copy engine and a map of rank 4. A thread
/// waits for those that it has started and committed.
__device__ __forceinline__ void add_box(const CUtensorMap& map, std::uint32_t from, int c0, int c1,
                                        int c2, int c3) {
  asm volatile(
      "cp.reduce.async.bulk.tensor.4d.global.shared::cta.add.tile.bulk_group"
      " [%0, {%2, %3, %4, %5}], [%1];" ::"l"(reinterpret_cast<std::uint64_t>(&map)),
      "r"(from), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
      : "memory");
}
__device__ __forceinline__ void commit_additions() { ::cuda::ptx::cp_async_bulk_commit_group(); }
/// Shared memory may be overwritten after this.
__device__ __forceinline__ void await_additions_read() {
  ::cuda::ptx::cp_async_bulk_wait_group_read(::cuda::ptx::n32_t<0>());
}
/// They are in memory after this.
__device__ __forceinline__ void await_additions() {
  ::cuda::ptx::cp_async_bulk_wait_group(::cuda::ptx::n32_t<0>());
}

/// This thread's ordinary accesses so far, to shared memory, come before what tensor cores and copy
/// engine do next.
__device__ __forceinline__ void fence_async_shared() {
  ::cuda::ptx::fence_proxy_async(::cuda::ptx::space_shared);
}
/// The same for global memory: what this thread has acquired may be read by the copy engine.
__device__ __forceinline__ void fence_async_global() {
  ::cuda::ptx::fence_proxy_async(::cuda::ptx::space_global);
}

// Named barriers: `threads` of all that arrive or wait.

__device__ __forceinline__ void barrier_wait(int id, int threads) {
  asm volatile("barrier.cta.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void barrier_arrive(int id, int threads) {
  asm volatile("barrier.cta.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Registers of a warpgroup, and what the compiler knows of them.

/// What is found from `x` after this is not found before.
__device__ __forceinline__ void forget(std::uint32_t& x) { asm volatile("" : "+r"(x)); }

/// A number that all lanes of the warp have: the compiler keeps what follows from it in uniform
/// registers, where descriptors of products must be.
__device__ __forceinline__ int of_warp(int x) { return __shfl_sync(0xffffffffU, x, 0); }

/// threadIdx.x, asked for anew: what is found from it is not kept in registers from before.
__device__ __forceinline__ int thread_again() {
  int x;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
  return x;
}

template <int kCount>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}

/// Ends a block of instructions, once `x` is known: ptxas moves a wait for products up to the last
/// branch before it, over all the work that was to be done meanwhile. `x` is never negative. The
/// whole warp branches together, by a vote: where lanes may part, descriptors are made in ordinary
/// registers and moved, 30 instructions a step more.
__device__ __forceinline__ void finish_before(float x) {
  asm volatile(
      "{\n"
      ".reg .pred never;\n"
      "setp.lt.f32 never, %0, 0f00000000;\n"
      "vote.sync.any.pred never, never, 0xffffffff;\n"
      "@never bra stop;\n"
      "bra on;\n"
      "stop:\n"
      "trap;\n"
      "on:\n"
      "}\n" ::"f"(x)
      : "memory");
}

/// Of this multiprocessor; goes around.
__device__ __forceinline__ std::uint32_t clock_now() {
  std::uint32_t x;
  asm volatile("mov.u32 %0, %%clock;" : "=r"(x)::"memory");
  return x;
}

/// The device's clock in nanoseconds, which moves in steps; never 0, goes around after 4 s.
__device__ __forceinline__ std::uint32_t nanoseconds_now() {
  return ::cuda::ptx::get_sreg_globaltimer_lo() | 1U;
}

// Launches that overlap (programmatic dependent launch); nothing happens in others.

/// The next kernel of the stream may start its blocks.
__device__ __forceinline__ void let_next_kernel_start() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
/// Until the kernel before this one has ended, and what it wrote can be read.
__device__ __forceinline__ void await_kernel_before() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

// Flags.

/// Adds 1: who reads it, a copy or stream too, sees what this thread has seen.
__device__ __forceinline__ void add_release_system(std::uint32_t* counter) {
  asm volatile("red.release.sys.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}

__device__ __forceinline__ std::uint32_t load_acquire_system(const std::uint32_t* flag) {
  std::uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}
__device__ __forceinline__ void pause() { __nanosleep(100); }
__device__ __forceinline__ void pause_shortly() { __nanosleep(20); }

// Counters of turns.

__device__ __forceinline__ int load_acquire(const int* counter) {
  int value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
  return value;
}
__device__ __forceinline__ void store_release(int* counter, int value) {
  asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(counter), "r"(value) : "memory");
}
/// What this thread has done or learnt of comes before what it does next, for all of the device.
__device__ __forceinline__ void fence_device() {
  ::cuda::ptx::fence(::cuda::ptx::sem_acq_rel, ::cuda::ptx::scope_gpu);
}

// Numbers.

/// The type of elements; they travel in packs of two.
struct Bf16 {};
struct Half {};

/// Two floats, rounded to nearest even; `low` comes first in memory.
__device__ __forceinline__ std::uint32_t pack(float low, float high, Bf16 /*type*/) {
  std::uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}
__device__ __forceinline__ std::uint32_t pack(float low, float high, Half /*type*/) {
  std::uint32_t both;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}

/// 2^x: two units in the last place; 2^-inf = 0.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace annulus::attn::sm90
