#pragma once

#include "attention/kernels/sm90/ptx.cuh"
#include "tests/emulate/tensor_core.h"

#include <cstdint>
#include <type_traits>

// attention/kernels/sm90/wgmma.cuh for the host.
namespace annulus::attn::sm90 {

inline void fence_products() { emulate::fence_products(); }
inline void commit_products() { emulate::commit_products(); }

/// Accumulators of products under way are NaN until somebody waits (tensor_core.h).
template <typename T, int kCount>
inline void hold(T (&/*d*/)[kCount]) {}

template <int kCount>
inline void drop(float (&/*d*/)[kCount]) {}

template <typename T>
inline constexpr bool is_half = std::is_same_v<T, Half>;

template <int kPending, int kCount>
inline void wait_products(float (&/*d*/)[kCount]) {
  emulate::wait_products(kPending);
}

template <int kPending>
inline void wait_products() {
  emulate::wait_products(kPending);
}

/// Both operands in shared memory; across: its rows lie across the contraction.
template <bool kAAcross, bool kBAcross, int kCount, typename T>
inline void multiply_shared(float (&d)[kCount], std::uint64_t a, std::uint64_t b, bool add,
                            T /*type*/) {
  emulate::start({.columns = 2 * kCount,
                  .half = is_half<T>,
                  .add = add,
                  .a_rows = a,
                  .a_across = kAAcross,
                  .b = b,
                  .b_across = kBAcross},
                 d);
}
template <int kCount, typename T>
inline void multiply(float (&d)[kCount], std::uint64_t a, std::uint64_t b, bool add, T type) {
  multiply_shared<false, false>(d, a, b, add, type);
}
template <int kCount, typename T>
inline void multiply_across(float (&d)[kCount], std::uint64_t a, std::uint64_t b, bool add,
                            T type) {
  multiply_shared<true, true>(d, a, b, add, type);
}
template <int kCount, typename T>
inline void multiply_along_across(float (&d)[kCount], std::uint64_t a, std::uint64_t b, bool add,
                                  T type) {
  multiply_shared<false, true>(d, a, b, add, type);
}
template <int kCount, typename T>
inline void multiply_across_along(float (&d)[kCount], std::uint64_t a, std::uint64_t b, bool add,
                                  T type) {
  multiply_shared<true, false>(d, a, b, add, type);
}

template <int kCount, typename T>
inline void multiply_add(float (&d)[kCount], const std::uint32_t* a, std::uint64_t b, bool add,
                         T /*type*/) {
  emulate::start(
      {.columns = 2 * kCount, .half = is_half<T>, .add = add, .a = a, .b = b, .b_across = true}, d);
}

}  // namespace annulus::attn::sm90
