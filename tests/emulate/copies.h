#pragma once

#include <cstdint>

struct CUtensorMap;

// Copies to shared memory that complete later.
namespace annulus::emulate {

/// Address bits 4 to 6 of the 128-byte swizzle: XOR with bits 7 to 9.
constexpr std::uint32_t swizzled(std::uint32_t address) {
  return address ^ ((address >> 3) & 0x70U);
}

/// One box of a map (rank 4), 64 elements of 2 bytes times its rows; outside of the tensor: 0. What
/// the box overwrites is NaN until then.
void copy_box(std::uint32_t to, const CUtensorMap& map, std::uint64_t* barrier, int c0, int c1,
              int c2, int c3);

/// cp.async of 16 bytes by this thread, or of zeroes; and the wait for all of them.
void copy16(std::uint32_t to, const void* from, bool real);
void wait_copies();
/// cp.reduce.async.bulk.tensor by this thread of one box of floats, 32 times its rows; nothing
/// outside the tensor. Shared memory is read later. And the wait for all of them.
void add_box(const CUtensorMap& map, std::uint32_t from, int c0, int c1, int c2, int c3);
void await_additions();
/// At the end of a block. Throws Misuse where a thread did not wait.
void require_no_copies();

}  // namespace annulus::emulate
