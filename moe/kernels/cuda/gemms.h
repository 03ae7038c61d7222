#pragma once

#include "moe/kernels/params.h"

#include <cstdint>
#include <span>
#include <vector>

// Products as BLAS calls: row-major matrices are column-major ones turned, so c^T = b^T a^T. Pure
// functions, tested without a GPU.
namespace annulus::moe::cuda {

/// c[m][n] = beta c + op(a) op(b), column-major: cublasGemmEx's arguments.
struct Gemm {
  bool turn_a = false, turn_b = false;
  std::int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;
  std::int64_t lda = 0, ldb = 0, ldc = 0;
  float beta = 0.0F;
};

/// One product: up to two calls in order, or zeroes.
struct GemmWork {
  DType in = DType::f32, out = DType::f32;
  Gemm calls[2];
  int count = 0;  ///< 0: c becomes zero, as calls[0] has its shape
  std::int64_t flops = 0;
};

/// Products that must run, heaviest first; what has no elements or leaves c as it is is left out. A
/// second pair of operands that continues the first in memory is one longer sum; otherwise c is
/// rounded between the two. Throws InvalidArgument or Unsupported, with the values.
std::vector<GemmWork> gemms_of(std::span<const Product> products);

/// Which of `lanes` takes each work: the one with the least to do, the first of equals.
std::vector<int> deal(std::span<const GemmWork> works, int lanes);

}  // namespace annulus::moe::cuda
