// Rows to experts and back.
#include "moe/kernels/cuda/device/rows.cuh"
#include "moe/kernels/cuda/device/split.cuh"
#include "moe/kernels/cuda/limits.h"

#include <cuda_runtime.h>

namespace annulus::moe::cuda {

namespace {

constexpr std::int64_t kMostBlocks = 1 << 20;
constexpr std::int64_t kShortRow = 128;  ///< bytes: a block a row would idle

template <typename Piece>
__global__ void __launch_bounds__(kRowThreads)
    scatter_kernel(const __grid_constant__ ScatterParams p) {
  __shared__ SlotRows shared;
  for (std::int64_t token = blockIdx.x; token < p.tokens; token += gridDim.x) {
    scatter_token<Piece>(p, shared, token);
  }
}

template <typename Piece>
__global__ void __launch_bounds__(kRowThreads) copy_kernel(const __grid_constant__ CopyParams p) {
  for (std::int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) copy_row<Piece>(p, row);
}

__global__ void __launch_bounds__(kRowThreads)
    copy_short_kernel(const __grid_constant__ CopyParams p) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kRowThreads + threadIdx.x;
  if (i < p.rows * (p.bytes / 4)) copy_piece(p, i);
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kRowThreads)
    combine_kernel(const __grid_constant__ CombineParams p) {
  __shared__ SlotRows shared;
  for (std::int64_t token = blockIdx.x; token < p.sum.tokens; token += gridDim.x) {
    sum_token<T, kWidth>(p, shared, token);
  }
}

__global__ void __launch_bounds__(kRowThreads) pull_kernel(const __grid_constant__ PullParams p) {
  const std::int64_t pair = std::int64_t{blockIdx.x} * kRowThreads + threadIdx.x;
  if (pair < p.pairs) pull_value(p, pair);
}

template <typename Piece>
__global__ void __launch_bounds__(kRowThreads) fetch_kernel(const __grid_constant__ FetchParams p) {
  __shared__ SlotRows shared;
  for (std::int64_t token = blockIdx.x; token < p.tokens; token += gridDim.x) {
    fetch_token<Piece>(p, shared, token);
  }
}

template <typename T>
__global__ void __launch_bounds__(kRowThreads) split_kernel(const __grid_constant__ SplitParams p) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kRowThreads + threadIdx.x;
  if (i < p.count) split_element(p.from, static_cast<T*>(p.high), static_cast<T*>(p.low), i);
}

unsigned grid(std::int64_t rows, int blocks) {
  const std::int64_t most = blocks > 0 ? blocks : kMostBlocks;
  return static_cast<unsigned>(rows < most ? rows : most);
}

/// The largest of 16, 4, 2 and 1 bytes that all of these are multiples of.
template <typename Each>
int piece_of(const Each& each) {
  std::uint64_t all = 0;
  each([&](std::uint64_t value) { all |= value; });
  return all % 16 == 0 ? 16 : all % 4 == 0 ? 4 : all % 2 == 0 ? 2 : 1;
}

std::uint64_t bits(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

int piece_of(const ScatterParams& p) {
  return piece_of([&](const auto& see) {
    see(static_cast<std::uint64_t>(p.bytes | p.from_stride));
    see(bits(p.from));
    see(bits(p.own_rows));
    for (const std::byte* to : p.to) see(bits(to));
  });
}

template <typename T>
KernelEntries combine_entries() {
  return entries_of(&combine_kernel<T, 16 / static_cast<int>(sizeof(T))>, &combine_kernel<T, 1>);
}

template <typename T>
void combine_as(const CombineParams& p, int blocks, cudaStream_t stream) {
  constexpr int kWidth = 16 / static_cast<int>(sizeof(T));
  const int piece = piece_of([&](const auto& see) {
    see(bits(p.sum.out));
    see(static_cast<std::uint64_t>(p.sum.width | p.sum.out_stride) * sizeof(T));
    for (const std::byte* rows : p.rows) see(bits(rows));
  });
  const auto kernel = piece == 16 ? &combine_kernel<T, kWidth> : &combine_kernel<T, 1>;
  kernel<<<grid(p.sum.tokens, blocks), kRowThreads, 0, stream>>>(p);
}

}  // namespace

KernelEntries rows_entries() {
  return entries_of(&scatter_kernel<uint4>, &scatter_kernel<std::uint16_t>,
                    &scatter_kernel<std::uint8_t>) +
         entries_of(&copy_kernel<uint4>, &copy_kernel<std::uint16_t>, &copy_kernel<std::uint8_t>,
                    &copy_short_kernel) +
         entries_of(&fetch_kernel<uint4>, &fetch_kernel<std::uint16_t>,
                    &fetch_kernel<std::uint8_t>) +
         combine_entries<Bf16>() + combine_entries<Half>() + combine_entries<float>() +
         entries_of(&pull_kernel, &split_kernel<Bf16>, &split_kernel<Half>);
}

void scatter(const ScatterParams& p, int blocks, void* stream) {
  check_slots(p.k);
  if (p.tokens == 0 || p.k == 0) return;
  const int piece = piece_of(p);
  const auto kernel = piece == 16  ? &scatter_kernel<uint4>
                      : piece >= 2 ? &scatter_kernel<std::uint16_t>
                                   : &scatter_kernel<std::uint8_t>;
  kernel<<<grid(p.tokens, blocks), kRowThreads, 0, static_cast<cudaStream_t>(stream)>>>(p);
  check_launch("scatter of rows");
}

void copy_rows(const CopyParams& p, void* stream) {
  if (p.rows == 0 || p.bytes == 0) return;
  const int piece = piece_of([&](const auto& see) {
    see(static_cast<std::uint64_t>(p.bytes | p.from_stride | p.to_stride));
    see(bits(p.from));
    see(bits(p.to));
  });
  if (piece >= 4 && p.bytes <= kShortRow) {
    const std::int64_t threads = p.rows * (p.bytes / 4);
    const auto blocks = static_cast<unsigned>((threads + kRowThreads - 1) / kRowThreads);
    copy_short_kernel<<<blocks, kRowThreads, 0, static_cast<cudaStream_t>(stream)>>>(p);
    return check_launch("copy of short rows");
  }
  const auto kernel = piece == 16  ? &copy_kernel<uint4>
                      : piece >= 2 ? &copy_kernel<std::uint16_t>
                                   : &copy_kernel<std::uint8_t>;
  kernel<<<grid(p.rows, 0), kRowThreads, 0, static_cast<cudaStream_t>(stream)>>>(p);
  check_launch("copy of rows");
}

void combine(const CombineParams& p, int blocks, void* stream) {
  check_slots(p.sum.k);
  if (p.sum.tokens == 0 || p.sum.width == 0) return;
  auto* on = static_cast<cudaStream_t>(stream);
  if (p.sum.dtype == DType::bf16) {
    combine_as<Bf16>(p, blocks, on);
  } else if (p.sum.dtype == DType::f16) {
    combine_as<Half>(p, blocks, on);
  } else {
    combine_as<float>(p, blocks, on);
  }
  check_launch("combine");
}

void fetch(const FetchParams& p, void* stream) {
  check_slots(p.k);
  if (p.tokens == 0 || p.k == 0) return;
  const int piece = piece_of([&](const auto& see) {
    see(static_cast<std::uint64_t>(p.bytes));
    see(bits(p.to));
    for (const std::byte* from : p.from) see(bits(from));
  });
  const auto kernel = piece == 16  ? &fetch_kernel<uint4>
                      : piece >= 2 ? &fetch_kernel<std::uint16_t>
                                   : &fetch_kernel<std::uint8_t>;
  kernel<<<grid(p.tokens, 0), kRowThreads, 0, static_cast<cudaStream_t>(stream)>>>(p);
  check_launch("fetch of rows");
}

void pull(const PullParams& p, void* stream) {
  if (p.pairs == 0) return;
  const auto blocks = static_cast<unsigned>((p.pairs + kRowThreads - 1) / kRowThreads);
  pull_kernel<<<blocks, kRowThreads, 0, static_cast<cudaStream_t>(stream)>>>(p);
  check_launch("pull of values");
}

void split(const SplitParams& p, void* stream) {
  if (p.count == 0) return;
  const auto blocks = static_cast<unsigned>((p.count + kRowThreads - 1) / kRowThreads);
  const auto kernel = p.dtype == DType::bf16 ? &split_kernel<Bf16> : &split_kernel<Half>;
  kernel<<<blocks, kRowThreads, 0, static_cast<cudaStream_t>(stream)>>>(p);
  check_launch("split");
}

}  // namespace annulus::moe::cuda
