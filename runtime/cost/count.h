#pragma once

#include <annulus/error.h>

#include <cstdint>
#include <initializer_list>

namespace annulus::cost {

// Counts pass 2^53 in real models, so they are integers, and a wrapped one would look plausible:
// every product and sum that can grow goes through here.
[[noreturn]] inline void throw_overflow() {
  throw InvalidArgument(
      "the counts of this problem pass 2^63 - 1 (9223372036854775807): give smaller sizes");
}

inline std::int64_t times(std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) throw_overflow();
  return result;
}

inline std::int64_t plus(std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  if (__builtin_add_overflow(a, b, &result)) throw_overflow();
  return result;
}

inline std::int64_t product(std::initializer_list<std::int64_t> factors) {
  std::int64_t result = 1;
  for (const std::int64_t factor : factors) result = times(result, factor);
  return result;
}

/// n (n + 1) / 2, without forming n (n + 1).
inline std::int64_t triangle(std::int64_t n) {
  return n % 2 == 0 ? times(n / 2, n + 1) : times(n, (n - 1) / 2 + 1);
}

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return a / b + (a % b != 0 ? 1 : 0);
}

}  // namespace annulus::cost
