#pragma once

#include "attention/execute/cuda/row_kernels.h"

#include <annulus/error.h>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>

// How threads share rows: a warp or a part of one a row, eight or four neighbours a lane where rows
// allow it, and warps that follow each other take memory that does.
namespace annulus::attn {

inline constexpr int kWarp = 32;
inline constexpr int kThreads = 256;
inline constexpr int kWide = 4;
inline constexpr int kWidest = 8;  ///< 16 bytes of two-byte elements

template <int Width>
struct Values {
  float v[Width];
};

template <typename T>
__device__ float to_float(T x) {
  return static_cast<float>(x);
}
template <typename T>
__device__ T from_float(float x) {
  return static_cast<T>(x);
}

/// T[Width], aligned to its size: one load.
template <typename T, int Width>
struct alignas(sizeof(T) * Width) Pack {
  T v[Width];
};

template <int Width, typename T>
__device__ Pack<T, Width> load_pack(const void* data, std::int64_t i) {
  return *reinterpret_cast<const Pack<T, Width>*>(static_cast<const T*>(data) + i);
}

template <int Width, typename T>
__device__ Values<Width> load_as(const void* data, std::int64_t i) {
  const auto pack = load_pack<Width, T>(data, i);
  Values<Width> out;
  for (int k = 0; k < Width; ++k) out.v[k] = to_float(pack.v[k]);
  return out;
}

template <int Width, typename T>
__device__ void store_as(void* data, std::int64_t i, const Values<Width>& values) {
  Pack<T, Width> pack;
  for (int k = 0; k < Width; ++k) pack.v[k] = from_float<T>(values.v[k]);
  *reinterpret_cast<Pack<T, Width>*>(static_cast<T*>(data) + i) = pack;
}

template <int Width>
__device__ Values<Width> load(const DeviceRows& x, std::int64_t i) {
  if (x.dtype == DType::f16) return load_as<Width, __half>(x.data, i);
  if (x.dtype == DType::bf16) return load_as<Width, __nv_bfloat16>(x.data, i);
  return load_as<Width, float>(x.data, i);
}

template <int Width>
__device__ void store(const DeviceRows& x, std::int64_t i, const Values<Width>& values) {
  if (x.dtype == DType::f16) {
    store_as<Width, __half>(x.data, i, values);
  } else if (x.dtype == DType::bf16) {
    store_as<Width, __nv_bfloat16>(x.data, i, values);
  } else {
    store_as<Width, float>(x.data, i, values);
  }
}

struct Row {
  std::int64_t batch, token, head;
};

/// i = (batch * outer + ...) * inner + ...
template <typename Index>
__device__ void split(Index i, Index outer, Index inner, std::int64_t& batch, std::int64_t& slow,
                      std::int64_t& fast) {
  const Index rest = i / inner;
  fast = i - rest * inner;
  batch = rest / outer;
  slow = rest - static_cast<Index>(batch) * outer;
}

/// A division of 64 bits takes as long as a row: they are for more rows than 32 bits count.
__device__ inline void split(std::int64_t i, std::int64_t rows, std::int64_t outer,
                             std::int64_t inner, std::int64_t& batch, std::int64_t& slow,
                             std::int64_t& fast) {
  if (rows <= 0xffffffffLL) {
    split(static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(outer),
          static_cast<std::uint32_t>(inner), batch, slow, fast);
  } else {
    split(i, outer, inner, batch, slow, fast);
  }
}

/// Rows, and how many lanes of a warp share one: a power of 2.
struct RowGrid {
  RowShape shape;
  int lanes;
};

/// The row of this thread of block `block`; false past the end.
__device__ inline bool find_row(const RowGrid& grid, unsigned block, Row& row) {
  const RowShape& shape = grid.shape;
  const std::int64_t i = std::int64_t{block} * (kThreads / grid.lanes) + threadIdx.x / grid.lanes;
  const std::int64_t rows = shape.batch * shape.tokens * shape.heads;
  if (i >= rows) return false;
  split(i, rows, shape.tokens, shape.heads, row.batch, row.token, row.head);
  return true;
}

__device__ inline bool find_row(const RowGrid& grid, Row& row) {
  return find_row(grid, blockIdx.x, row);
}

/// As many rows, `step` apart, from row `first` on; the last one instead of those past the end. How
/// many are not.
template <typename Index, int kCount>
__device__ inline int split_rows(const RowShape& shape, Index first, Index step,
                                 Row (&found)[kCount]) {
  const auto rows = static_cast<Index>(shape.batch * shape.tokens * shape.heads);
  int real = 0;
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    const Index i = first + static_cast<Index>(k) * step;
    if (i < rows) ++real;
    split(i < rows ? i : rows - 1, static_cast<Index>(shape.tokens),
          static_cast<Index>(shape.heads), found[k].batch, found[k].token, found[k].head);
  }
  return real;
}

/// Rows of this thread of block `block`, where each has several; threads that follow each other
/// have rows that do.
template <int kCount>
__device__ inline int find_rows(const RowGrid& grid, unsigned block, Row (&found)[kCount]) {
  const RowShape& shape = grid.shape;
  const int step = kThreads / grid.lanes;
  const std::int64_t first = std::int64_t{block} * kCount * step + threadIdx.x / grid.lanes;
  if (shape.batch * shape.tokens * shape.heads <= 0x7fffffffLL) {
    return split_rows(shape, static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(step),
                      found);
  }
  return split_rows(shape, first, std::int64_t{step}, found);
}

__device__ inline std::int64_t at(const DeviceRows& x, const Row& row) {
  return row.batch * x.batch_stride + row.token * x.token_stride + row.head * x.head_stride;
}

/// fn(d) for each run of Width elements of the row that is this lane's.
template <int Width, typename Fn>
__device__ void each_run(const RowGrid& grid, Fn&& fn) {
  const int step = grid.lanes * Width;
  for (std::int64_t d = threadIdx.x % grid.lanes * Width; d < grid.shape.dims; d += step) fn(d);
}

/// True where every row of every operand can be read `width` elements at a time.
inline bool wide(const RowShape& shape, std::initializer_list<DeviceRows> operands,
                 int width = kWide) {
  if (shape.dims % width != 0) return false;
  for (const DeviceRows& x : operands) {
    if (x.data == nullptr) continue;
    const std::int64_t strides = x.batch_stride | x.token_stride | x.head_stride;
    const auto address = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(x.data));
    if (strides % width != 0 || address % (width * size_of(x.dtype)) != 0) return false;
  }
  return true;
}

/// Tokens and heads change places.
inline RowShape turned(const RowShape& shape, std::initializer_list<DeviceRows*> operands) {
  for (DeviceRows* x : operands) std::swap(x->token_stride, x->head_stride);
  return {shape.batch, shape.heads, shape.tokens, shape.dims};
}

/// Where heads follow each other in every operand, or tokens do, they are cut anew, into runs that
/// a warp takes at once: however long they are, warps then go through memory side by side.
inline RowShape recut(RowShape shape, std::initializer_list<DeviceRows*> operands) {
  constexpr std::int64_t kRun = kWarp * kWidest;
  const auto tokens_follow = [&](const DeviceRows* x) { return x->token_stride == shape.dims; };
  if (std::all_of(operands.begin(), operands.end(), tokens_follow)) {
    shape = turned(shape, operands);
  }
  const std::int64_t row = shape.heads * shape.dims;
  if (row % kRun != 0) return shape;
  for (const DeviceRows* x : operands) {
    if (x->head_stride != shape.dims) return shape;
  }
  for (DeviceRows* x : operands) x->head_stride = kRun;
  return {shape.batch, shape.tokens, row / kRun, kRun};
}

/// As many lanes as a row has runs of `width`.
inline RowGrid grid_of(const RowShape& shape, int width) {
  int lanes = 1;
  while (lanes < kWarp && std::int64_t{lanes} * width < shape.dims) lanes *= 2;
  return {shape, lanes};
}

/// Blocks of kThreads that have a row, or a part of one, for each thread.
inline unsigned blocks_of(const RowGrid& grid) {
  const std::int64_t rows = grid.shape.batch * grid.shape.tokens * grid.shape.heads;
  const std::int64_t per_block = kThreads / grid.lanes;
  return static_cast<unsigned>((rows + per_block - 1) / per_block);
}

// Launches that overlap (programmatic dependent launch), where the code is for GPUs that have it;
// nothing happens in others.

/// The next kernel of the stream may start its blocks.
__device__ inline void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
/// Until the kernel before this one has ended, and what it wrote can be read.
__device__ inline void await_kernel_before() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

inline void check_launch(const char* what) {
  const cudaError_t code = cudaGetLastError();
  if (code == cudaSuccess) return;
  throw DeviceError(std::string("launch of ") + what + ": " + cudaGetErrorString(code));
}

/// Calls `launch(blocks, threads)` unless there is nothing to do; `per_block`: rows of a block.
template <typename Launch>
void run(const RowShape& shape, int per_block, const char* what, Launch&& launch) {
  const std::int64_t rows = shape.batch * shape.tokens * shape.heads;
  if (rows * shape.dims == 0) return;
  launch(static_cast<unsigned>((rows + per_block - 1) / per_block), kThreads);
  check_launch(what);
}

template <typename Launch>
void run(const RowGrid& grid, const char* what, Launch&& launch, int of_thread = 1) {
  run(grid.shape, of_thread * kThreads / grid.lanes, what, launch);
}

/// How many elements a lane takes at once.
inline int width_for(const RowShape& shape, std::initializer_list<DeviceRows> operands) {
  if (wide(shape, operands, kWidest)) return kWidest;
  return wide(shape, operands) ? kWide : 1;
}

}  // namespace annulus::attn
