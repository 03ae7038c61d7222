#pragma once

#include "comm/transport.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace annulus::comm {

/// A copy as the copy engines take it: `rows` runs of `run` bytes.
struct Plane {
  std::byte* to = nullptr;
  const std::byte* from = nullptr;
  std::int64_t to_pitch = 0;
  std::int64_t from_pitch = 0;
  std::int64_t run = 0;
  std::int64_t rows = 1;
};

/// Pitches are below this one (cudaDevAttrMaxPitch).
constexpr std::int64_t kMaxPitch = (std::int64_t{1} << 31) - 1;

/// Few, large copies: one for a dense or once-strided region. Both have the same shape.
std::vector<Plane> planes(const Region& source, const Region& target);

}  // namespace annulus::comm
