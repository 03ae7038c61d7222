#pragma once

#include "attention/kernels/cuda/device/pairs.cuh"

#include <cstdint>

namespace annulus::attn::cuda {

/// Two matrices [batch][head][row][key of all segments] and one number a row, in the workspace. How
/// many keys there are only the device knows.
struct Matrices {
  float *first, *second, *keep;
  std::int64_t rows, heads, keys;

  __device__ Matrices(const Geometry& g, float* memory)
      : rows(g.rows), heads(g.heads), keys(key_count(g)) {
    const std::int64_t size = g.batch * g.heads * g.rows * keys;
    first = memory;
    second = memory + size;
    keep = second + size;
  }
  __device__ std::int64_t row(std::int64_t batch, std::int64_t head, std::int64_t i) const {
    return ((batch * heads + head) * rows + i) * keys;
  }
  __device__ float& keep_of(std::int64_t batch, std::int64_t head, std::int64_t i) const {
    return keep[(batch * heads + head) * rows + i];
  }
};

/// Block (row, head, batch): one row of a matrix to `value`.
static __global__ void fill_matrix(const __grid_constant__ Geometry g, float* memory, float value,
                                   bool both) {
  const Matrices m(g, memory);
  for (std::int64_t i = blockIdx.x; i < g.rows; i += gridDim.x) {
    const std::int64_t row = m.row(blockIdx.z, blockIdx.y, i);
    for (std::int64_t j = threadIdx.x; j < m.keys; j += blockDim.x) {
      m.first[row + j] = value;
      if (both) m.second[row + j] = value;
    }
  }
}

}  // namespace annulus::attn::cuda
