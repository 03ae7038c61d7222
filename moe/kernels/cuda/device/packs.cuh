#pragma once

#include "moe/kernels/cuda/device/elements.cuh"

#include <cstdint>

// Neighbouring elements as one load: 16 bytes of a row, or a single element where rows do not allow
// that.
namespace annulus::moe::cuda {

template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  T v[kWidth];
};

template <int kWidth>
struct Floats {
  float v[kWidth];
};

/// Elements [i * kWidth, (i + 1) * kWidth) of a row.
template <typename T, int kWidth>
__device__ Floats<kWidth> load_pack(const T* row, std::int64_t i) {
  const auto pack = reinterpret_cast<const Pack<T, kWidth>*>(row)[i];
  Floats<kWidth> out;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) out.v[j] = to_float(pack.v[j]);
  return out;
}

template <typename T, int kWidth>
__device__ void store_pack(T* row, std::int64_t i, const Floats<kWidth>& values) {
  Pack<T, kWidth> pack;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) from_float(values.v[j], pack.v[j]);
  reinterpret_cast<Pack<T, kWidth>*>(row)[i] = pack;
}

}  // namespace annulus::moe::cuda
