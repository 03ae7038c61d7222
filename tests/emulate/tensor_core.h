#pragma once

#include <cstddef>
#include <cstdint>

// wgmma on the host: products of 64 rows by 16 that 128 threads start together. They are done when
// the last thread has come, or only when somebody waits for them, by the draw; until then the
// accumulators are NaN.
namespace annulus::emulate {

struct Product {
  int columns = 0;                   ///< N
  bool half = false;                 ///< f16, else bf16
  bool add = true;                   ///< to the accumulators, else instead
  const std::uint32_t* a = nullptr;  ///< this thread's part of A, or
  std::uint64_t a_rows = 0;          ///< its descriptor
  bool a_across = false;             ///< rows of A lie across the contraction (trans-a)
  std::uint64_t b = 0;               ///< descriptor
  bool b_across = false;             ///< rows of B lie across the contraction (trans-b)
};

void fence_products();
void start(const Product& product, float* accumulators);
void commit_products();
/// Until all but the last `pending` groups of this thread are done.
void wait_products(int pending);

/// Shared address of element (row, k) that a descriptor names, or (k, row) where `across`.
std::uint32_t element_address(std::uint64_t descriptor, bool across, int row, int k);

/// Forgets everything, for a block that begins.
void reset_products();

}  // namespace annulus::emulate
