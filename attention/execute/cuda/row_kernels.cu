// Row operations of plans on the GPU: a warp or a part of one a row, any strides, no shared memory.
// They are bound by memory. A lane takes eight or four neighbours at once where rows allow it, and
// warps that follow each other take memory that does.

#include "attention/execute/cuda/row_kernels.h"

#include <annulus/error.h>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>

namespace annulus::attn {
namespace {

constexpr int kWarp = 32;
constexpr int kThreads = 256;
constexpr int kWide = 4;
constexpr int kWidest = 8;  ///< 16 bytes of two-byte elements

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
__device__ Values<Width> load_as(const void* data, std::int64_t i) {
  const auto pack = *reinterpret_cast<const Pack<T, Width>*>(static_cast<const T*>(data) + i);
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
__device__ void split(std::int64_t i, std::int64_t rows, std::int64_t outer, std::int64_t inner,
                      std::int64_t& batch, std::int64_t& slow, std::int64_t& fast) {
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

/// The row of this thread; false past the end.
__device__ bool find_row(const RowGrid& grid, Row& row) {
  const RowShape& shape = grid.shape;
  const std::int64_t i =
      std::int64_t{blockIdx.x} * (kThreads / grid.lanes) + threadIdx.x / grid.lanes;
  const std::int64_t rows = shape.batch * shape.tokens * shape.heads;
  if (i >= rows) return false;
  split(i, rows, shape.tokens, shape.heads, row.batch, row.token, row.head);
  return true;
}

__device__ std::int64_t at(const DeviceRows& x, const Row& row) {
  return row.batch * x.batch_stride + row.token * x.token_stride + row.head * x.head_stride;
}

/// fn(d) for each run of Width elements of the row that is this lane's.
template <int Width, typename Fn>
__device__ void each_run(const RowGrid& grid, Fn&& fn) {
  const int step = grid.lanes * Width;
  for (std::int64_t d = threadIdx.x % grid.lanes * Width; d < grid.shape.dims; d += step) fn(d);
}

template <int Width>
__global__ void convert_rows(DeviceRows from, DeviceRows to, RowGrid grid) {
  Row row;
  if (!find_row(grid, row)) return;
  each_run<Width>(grid, [&](std::int64_t d) {
    store<Width>(to, at(to, row) + d, load<Width>(from, at(from, row) + d));
  });
}

/// Rows of one element, such as lse: a thread each, neighbours along tokens, as callers have them.
__global__ void convert_elements(DeviceRows from, DeviceRows to, RowShape shape) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::int64_t rows = shape.batch * shape.tokens * shape.heads;
  if (i >= rows) return;
  Row row;
  split(i, rows, shape.heads, shape.tokens, row.batch, row.head, row.token);
  store<1>(to, at(to, row), load<1>(from, at(from, row)));
}

template <int Width>
__global__ void zero_rows(DeviceRows to, RowGrid grid) {
  Row row;
  if (!find_row(grid, row)) return;
  each_run<Width>(grid,
                  [&](std::int64_t d) { store<Width>(to, at(to, row) + d, Values<Width>{}); });
}

template <int Width>
__global__ void sum_rows(DeviceRows a, DeviceRows b, DeviceRows to, RowGrid grid) {
  Row row;
  const bool mine = find_row(grid, row);
  float sum = 0.0F;
  if (mine) {
    each_run<Width>(grid, [&](std::int64_t d) {
      const Values<Width> x = load<Width>(a, at(a, row) + d);
      const Values<Width> y = load<Width>(b, at(b, row) + d);
      for (int k = 0; k < Width; ++k) sum += x.v[k] * y.v[k];
    });
  }
  for (int offset = grid.lanes / 2; offset > 0; offset /= 2) {
    sum += __shfl_xor_sync(0xffffffffU, sum, offset);
  }
  if (mine && threadIdx.x % grid.lanes == 0) store<1>(to, at(to, row), Values<1>{{sum}});
}

template <int Width>
__global__ void reduce_rows(DeviceRows from, DeviceRows to, bool assign, RowGrid grid) {
  Row row;
  if (!find_row(grid, row)) return;
  each_run<Width>(grid, [&](std::int64_t d) {
    Values<Width> sum = load<Width>(from, at(from, row) + d);
    if (!assign) {
      const Values<Width> before = load<Width>(to, at(to, row) + d);
      for (int k = 0; k < Width; ++k) sum.v[k] += before.v[k];
    }
    store<Width>(to, at(to, row) + d, sum);
  });
}

struct MergeRows {
  DeviceRows o, lse, other, other_lse, out;
};

template <int Width>
__global__ void merge_rows(MergeRows m, RowGrid grid) {
  Row row;
  const bool found = find_row(grid, row);
  const float a = found ? load<1>(m.lse, at(m.lse, row)).v[0] : 0.0F;
  const float b = found ? load<1>(m.other_lse, at(m.other_lse, row)).v[0] : 0.0F;
  __syncwarp();  // all lanes have read what one of them writes
  if (!found) return;
  const float top = fmaxf(a, b);
  // (0, -inf) on both sides stays the identity; -inf on one side has weight 0.
  const float wa = top == -INFINITY ? 0.0F : expf(a - top);
  const float wb = top == -INFINITY ? 0.0F : expf(b - top);
  const float total = wa + wb;
  each_run<Width>(grid, [&](std::int64_t d) {
    Values<Width> sum{};
    if (wa > 0.0F) {
      const Values<Width> mine = load<Width>(m.o, at(m.o, row) + d);
      for (int k = 0; k < Width; ++k) sum.v[k] += wa / total * mine.v[k];
    }
    if (wb > 0.0F) {
      const Values<Width> theirs = load<Width>(m.other, at(m.other, row) + d);
      for (int k = 0; k < Width; ++k) sum.v[k] += wb / total * theirs.v[k];
    }
    store<Width>(m.o, at(m.o, row) + d, sum);
    if (m.out.data != nullptr) store<Width>(m.out, at(m.out, row) + d, sum);
  });
  if (threadIdx.x % grid.lanes != 0) return;
  store<1>(m.lse, at(m.lse, row), Values<1>{{total > 0.0F ? top + logf(total) : -INFINITY}});
}

__global__ void begin_call(CallWords words, std::uint32_t pass) {
  *words.flops = 0;
  *words.calls += 1;
  *words.pass = pass;
  for (int i = 0; i < words.counter_count; ++i) words.counters[i] = 0;
}

__global__ void fill_words(std::uint32_t* words, int count, std::uint32_t value) {
  for (int i = 0; i < count; ++i) words[i] = value;
}

/// True where every row of every operand can be read `width` elements at a time.
bool wide(const RowShape& shape, std::initializer_list<DeviceRows> operands, int width = kWide) {
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
RowShape turned(const RowShape& shape, std::initializer_list<DeviceRows*> operands) {
  for (DeviceRows* x : operands) std::swap(x->token_stride, x->head_stride);
  return {shape.batch, shape.heads, shape.tokens, shape.dims};
}

/// Where heads follow each other in every operand, or tokens do, they are cut anew, into runs that
/// a warp takes at once: however long they are, warps then go through memory side by side.
RowShape recut(RowShape shape, std::initializer_list<DeviceRows*> operands) {
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
RowGrid grid_of(const RowShape& shape, int width) {
  int lanes = 1;
  while (lanes < kWarp && std::int64_t{lanes} * width < shape.dims) lanes *= 2;
  return {shape, lanes};
}

/// Calls `launch(blocks, threads)` unless there is nothing to do; `per_block`: rows of a block.
template <typename Launch>
void run(const RowShape& shape, int per_block, const char* what, Launch&& launch) {
  const std::int64_t rows = shape.batch * shape.tokens * shape.heads;
  if (rows * shape.dims == 0) return;
  launch(static_cast<unsigned>((rows + per_block - 1) / per_block), kThreads);
  const cudaError_t code = cudaGetLastError();
  if (code != cudaSuccess) {
    throw DeviceError(std::string("launch of ") + what + ": " + cudaGetErrorString(code));
  }
}

template <typename Launch>
void run(const RowGrid& grid, const char* what, Launch&& launch) {
  run(grid.shape, kThreads / grid.lanes, what, launch);
}

/// How many elements a lane takes at once.
int width_for(const RowShape& shape, std::initializer_list<DeviceRows> operands) {
  if (wide(shape, operands, kWidest)) return kWidest;
  return wide(shape, operands) ? kWide : 1;
}

/// The instantiation for `width`.
template <typename Kernel>
Kernel* of_width(int width, Kernel* one, Kernel* four, Kernel* eight) {
  return width == kWidest ? eight : width == kWide ? four : one;
}

}  // namespace

void launch_convert(DeviceRows from, DeviceRows to, const RowShape& given, cudaStream_t stream) {
  if (given.dims == 1) {
    run(given, kThreads, "convert", [&](unsigned blocks, int threads) {
      convert_elements<<<blocks, threads, 0, stream>>>(from, to, given);
    });
    return;
  }
  const RowShape shape = recut(given, {&from, &to});
  const int width = width_for(shape, {from, to});
  const auto kernel = of_width(width, convert_rows<1>, convert_rows<kWide>, convert_rows<kWidest>);
  const RowGrid grid = grid_of(shape, width);
  run(grid, "convert", [&](unsigned blocks, int threads) {
    kernel<<<blocks, threads, 0, stream>>>(from, to, grid);
  });
}

void launch_zero(DeviceRows to, const RowShape& given, cudaStream_t stream) {
  const RowShape shape = recut(given, {&to});
  const int width = width_for(shape, {to});
  const auto kernel = of_width(width, zero_rows<1>, zero_rows<kWide>, zero_rows<kWidest>);
  const RowGrid grid = grid_of(shape, width);
  run(grid, "zero",
      [&](unsigned blocks, int threads) { kernel<<<blocks, threads, 0, stream>>>(to, grid); });
}

void launch_row_sums(const DeviceRows& a, const DeviceRows& b, const DeviceRows& to,
                     const RowShape& shape, cudaStream_t stream) {
  const int width = width_for(shape, {a, b});
  const auto kernel = of_width(width, sum_rows<1>, sum_rows<kWide>, sum_rows<kWidest>);
  const RowGrid grid = grid_of(shape, width);
  run(grid, "row sums", [&](unsigned blocks, int threads) {
    kernel<<<blocks, threads, 0, stream>>>(a, b, to, grid);
  });
}

void launch_reduce(DeviceRows from, DeviceRows to, bool assign, const RowShape& given,
                   cudaStream_t stream) {
  const RowShape shape = recut(given, {&from, &to});
  const int width = width_for(shape, {from, to});
  const auto kernel = of_width(width, reduce_rows<1>, reduce_rows<kWide>, reduce_rows<kWidest>);
  const RowGrid grid = grid_of(shape, width);
  run(grid, "reduce", [&](unsigned blocks, int threads) {
    kernel<<<blocks, threads, 0, stream>>>(from, to, assign, grid);
  });
}

void launch_merge(const DeviceRows& o, const DeviceRows& lse, const DeviceRows& other,
                  const DeviceRows& other_lse, const DeviceRows& out, const RowShape& shape,
                  cudaStream_t stream) {
  const MergeRows m{o, lse, other, other_lse, out};
  const int width = width_for(shape, {o, other, out});
  const auto kernel = of_width(width, merge_rows<1>, merge_rows<kWide>, merge_rows<kWidest>);
  const RowGrid grid = grid_of(shape, width);
  run(grid, "merge",
      [&](unsigned blocks, int threads) { kernel<<<blocks, threads, 0, stream>>>(m, grid); });
}

void launch_begin(const CallWords& words, std::uint32_t pass, cudaStream_t stream) {
  run(RowShape{1, 1, 1, 1}, 1, "begin",
      [&](unsigned, int) { begin_call<<<1, 1, 0, stream>>>(words, pass); });
}

void launch_fill(std::uint32_t* words, int count, std::uint32_t value, cudaStream_t stream) {
  run(RowShape{1, 1, 1, 1}, 1, "fill",
      [&](unsigned, int) { fill_words<<<1, 1, 0, stream>>>(words, count, value); });
}

}  // namespace annulus::attn
