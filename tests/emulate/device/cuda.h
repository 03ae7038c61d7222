#pragma once

#include <array>
#include <cstdint>

// Stands for the driver's header where kernels are compiled for the host.
struct CUtensorMap {
  const void* data = nullptr;
  std::array<std::uint64_t, 4> extents{};  ///< elements of 2 bytes, or floats
  std::array<std::uint64_t, 3> strides{};  ///< bytes
  int rows = 128;                          ///< of a box
};
