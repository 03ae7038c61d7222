#include "runtime/cost/counters/product.h"

#include <annulus/error.h>

#include <cuda_runtime.h>

#include <vector>

namespace annulus::cost {
namespace {

constexpr int kSide = static_cast<int>(kProductSide);
constexpr int kColumns = 64;  // of C a warp computes, beside 16 rows
constexpr int kWarps = 4;     // a block: 64 x 64 of C
constexpr std::uint16_t kOneBf16 = 0x3f80, kTwoBf16 = 0x4000;
constexpr std::uint16_t kOneHalf = 0x3c00, kTwoHalf = 0x4000;

void require(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    throw DeviceError(std::string(what) + ": " + cudaGetErrorString(status));
  }
}

template <bool kBf16>
__device__ void multiply(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                         std::uint32_t b1) {
  if constexpr (kBf16) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

__global__ void fill(std::uint16_t* to, std::uint16_t value) {
  to[blockIdx.x * static_cast<std::size_t>(blockDim.x) + threadIdx.x] = value;
}

/// C = A * B with A as [row][k] and B as [column][k]. A thread holds, with g = lane / 4 and
/// t = lane % 4, rows g and g + 8 of A, column g of B, and columns 2t, 2t + 1 of C (PTX ISA,
/// mma.m16n8k16).
template <bool kBf16>
__global__ void __launch_bounds__(32 * kWarps)
    product(const std::uint16_t* __restrict__ a, const std::uint16_t* __restrict__ b,
            float* __restrict__ c) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const int warp = static_cast<int>(threadIdx.x) >> 5;
  const int g = lane >> 2;
  const int t = lane & 3;
  const int row = (static_cast<int>(blockIdx.y) * kWarps + warp) * 16;
  const int column = static_cast<int>(blockIdx.x) * kColumns;
  const auto pair = [](const std::uint16_t* from) {
    return *reinterpret_cast<const std::uint32_t*>(from);
  };
  float sums[kColumns / 8][4] = {};
  for (int k = 0; k < kSide; k += 16) {
    const std::uint16_t* top = a + (row + g) * kSide + k + 2 * t;
    const std::uint32_t rows[4] = {pair(top), pair(top + 8 * kSide), pair(top + 8),
                                   pair(top + 8 * kSide + 8)};
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
      const std::uint16_t* left = b + (column + 8 * n + g) * kSide + k + 2 * t;
      multiply<kBf16>(sums[n], rows, pair(left), pair(left + 8));
    }
  }
#pragma unroll
  for (int n = 0; n < kColumns / 8; ++n) {
    float* to = c + (row + g) * kSide + column + 8 * n + 2 * t;
    to[0] = sums[n][0];
    to[1] = sums[n][1];
    to[8 * kSide] = sums[n][2];
    to[8 * kSide + 1] = sums[n][3];
  }
}

}  // namespace

void DeviceMemoryTraits::close(Type memory) noexcept { cudaFree(memory); }

KnownProduct::KnownProduct(DType dtype) : dtype_(dtype) {
  constexpr std::size_t kElements = static_cast<std::size_t>(kSide) * kSide;
  const bool bf16 = dtype == DType::bf16;
  require(cudaMalloc(a_.out(), kElements * 2), "cudaMalloc");
  require(cudaMalloc(b_.out(), kElements * 2), "cudaMalloc");
  require(cudaMalloc(c_.out(), kElements * 4), "cudaMalloc");
  require(cudaMemset(c_.get(), 0xff, kElements * 4), "cudaMemset");
  const auto elements = [](void* memory) { return static_cast<std::uint16_t*>(memory); };
  fill<<<kElements / 256, 256>>>(elements(a_.get()), bf16 ? kOneBf16 : kOneHalf);
  fill<<<kElements / 256, 256>>>(elements(b_.get()), bf16 ? kTwoBf16 : kTwoHalf);
  require(cudaGetLastError(), "filling the known product");
}

void KnownProduct::run() {
  const dim3 grid(kSide / kColumns, kSide / (16 * kWarps));
  const auto* a = static_cast<const std::uint16_t*>(a_.get());
  const auto* b = static_cast<const std::uint16_t*>(b_.get());
  auto* c = static_cast<float*>(c_.get());
  if (dtype_ == DType::bf16) {
    product<true><<<grid, 32 * kWarps>>>(a, b, c);
  } else {
    product<false><<<grid, 32 * kWarps>>>(a, b, c);
  }
  require(cudaGetLastError(), "the known product");
}

std::string KnownProduct::check() const {
  std::vector<float> c(static_cast<std::size_t>(kSide) * kSide);
  require(cudaMemcpy(c.data(), c_.get(), c.size() * sizeof(float), cudaMemcpyDeviceToHost),
          "the known product");
  for (const float value : c) {
    if (value != 2.0F * kSide) {
      return "the known product gave " + std::to_string(value) + " for 2048";
    }
  }
  return {};
}

}  // namespace annulus::cost
