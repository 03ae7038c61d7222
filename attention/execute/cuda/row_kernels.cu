// Row operations of plans on the GPU: any strides, no shared memory. They are bound by memory.

#include "attention/execute/cuda/early.h"
#include "attention/execute/cuda/row_work.cuh"

namespace annulus::attn {
namespace {

template <int Width>
__global__ void convert_rows(DeviceRows from, DeviceRows to, RowGrid grid) {
  await_kernel_before();
  convert_block<Width>(from, to, grid, blockIdx.x);
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

template <int Width, typename T>
__global__ void sum_rows(DeviceRows a, DeviceRows b, DeviceRows to, RowGrid grid) {
  let_next_kernel_start();
  sum_block<Width, T>(a, b, to, grid, blockIdx.x);
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

__global__ void begin_call(CallWords words, std::uint32_t pass) { begin_words(words, pass); }

__global__ void fill_words(std::uint32_t* words, int count, std::uint32_t value) {
  for (int i = 0; i < count; ++i) words[i] = value;
}

/// The instantiation for `width`.
template <typename Kernel>
Kernel* of_width(int width, Kernel* one, Kernel* four, Kernel* eight) {
  return width == kWidest ? eight : width == kWide ? four : one;
}

}  // namespace

KernelEntries row_entries() {
  return row_works_entries() +
         entries_of(&convert_rows<1>, &convert_rows<kWide>, &convert_rows<kWidest>,
                    &convert_elements, &zero_rows<1>, &zero_rows<kWide>, &zero_rows<kWidest>,
                    &sum_rows<1, __half>, &sum_rows<kWide, __half>, &sum_rows<kWidest, __half>,
                    &sum_rows<1, __nv_bfloat16>, &sum_rows<kWide, __nv_bfloat16>,
                    &sum_rows<kWidest, __nv_bfloat16>, &sum_rows<1, float>, &sum_rows<kWide, float>,
                    &sum_rows<kWidest, float>, &reduce_rows<1>, &reduce_rows<kWide>,
                    &reduce_rows<kWidest>, &merge_rows<1>, &merge_rows<kWide>, &merge_rows<kWidest>,
                    &begin_call, &fill_words);
}

bool convert_may_overlap() {
  cudaFuncAttributes attributes{};
  return cudaFuncGetAttributes(&attributes, convert_rows<kWidest>) == cudaSuccess &&
         attributes.ptxVersion >= 90;
}

void launch_convert(DeviceRows from, DeviceRows to, const RowShape& given, cudaStream_t stream,
                    bool early) {
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
    const Early launch(blocks, threads, stream, early);
    (void)cudaLaunchKernelEx(launch.config(), kernel, from, to, grid);
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

namespace {

template <typename T>
void sum_rows_of(const DeviceRows& a, const DeviceRows& b, const DeviceRows& to,
                 const RowShape& shape, cudaStream_t stream) {
  const int width = width_for(shape, {a, b});
  const auto kernel = of_width(width, sum_rows<1, T>, sum_rows<kWide, T>, sum_rows<kWidest, T>);
  const RowGrid grid = grid_of(shape, width);
  run(
      grid, "row sums",
      [&](unsigned blocks, int threads) { kernel<<<blocks, threads, 0, stream>>>(a, b, to, grid); },
      kRowsAtOnce);
}

}  // namespace

void launch_row_sums(const DeviceRows& a, const DeviceRows& b, const DeviceRows& to,
                     const RowShape& shape, cudaStream_t stream) {
  if (a.dtype != b.dtype) throw DeviceError("row sums: factors of two dtypes");
  if (a.dtype == DType::f16) return sum_rows_of<__half>(a, b, to, shape, stream);
  if (a.dtype == DType::bf16) return sum_rows_of<__nv_bfloat16>(a, b, to, shape, stream);
  sum_rows_of<float>(a, b, to, shape, stream);
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
