#pragma once

#include "moe/kernels/cuda/device/elements.cuh"

#include <cstdint>

namespace annulus::moe::cuda {

/// An f32 value as a sum of two of T: 16 of its 24 bits in bf16, 22 in f16. So a product of f32
/// with T becomes two of T.
template <typename T>
__device__ void split_element(const float* from, T* high, T* low, std::int64_t i) {
  T top;
  from_float(from[i], top);
  high[i] = top;
  from_float(from[i] - to_float(top), low[i]);
}

}  // namespace annulus::moe::cuda
