#include "tests/gpu/time_decode.h"

#include "attention/kernels/cuda/table.h"
#include "attention/kernels/sm90/driver.h"
#include "attention/kernels/sm90/split.h"
#include "tests/gpu/device_kernel.h"
#include "tests/gpu/timed_shapes.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

namespace annulus::testing {

namespace {

struct Decode {
  std::int64_t dim, dim_v, rows, heads, heads_kv, keys, batch;
};

constexpr Decode kShapes[] = {{128, 128, 1, 32, 8, 131072, 1},  {128, 128, 1, 32, 8, 131072, 8},
                              {128, 128, 16, 32, 8, 131072, 1}, {128, 128, 16, 32, 8, 131072, 8},
                              {128, 128, 512, 8, 8, 131072, 1}, {128, 128, 1, 32, 32, 131072, 1},
                              {128, 128, 1, 32, 8, 8192, 1},    {128, 128, 1, 32, 8, 8192, 8},
                              {128, 128, 1, 32, 8, 2048, 1},    {128, 128, 512, 4, 4, 2048, 1},
                              {128, 128, 2048, 4, 4, 2048, 1},  {64, 64, 1, 32, 8, 131072, 1},
                              {192, 128, 1, 32, 32, 32768, 1},  {256, 256, 1, 16, 8, 131072, 1}};

std::string name_of(const Decode& s) {
  std::string name = "bf16 " + std::to_string(s.dim);
  if (s.dim_v != s.dim) name.append(":").append(std::to_string(s.dim_v));
  return name + " decode " + std::to_string(s.rows) + " x " + std::to_string(s.heads) + ":" +
         std::to_string(s.heads_kv) + " x " + std::to_string(s.keys) + " batch " +
         std::to_string(s.batch);
}

attn::TileLimits tiles_for_shape(const Decode& s, const attn::Kernel& kernel) {
  return attn::tiles_for(kernel,
                         {DType::bf16, s.dim, s.dim_v, false, kernel.backend, false, s.keys});
}

/// One launch over all keys, unmasked, in the tiles that plans would have.
struct Lists {
  Lists(const Decode& s, const attn::Kernel& kernel) {
    const attn::TileLimits most = tiles_for_shape(s, kernel);
    for (std::int64_t row = 0; row < s.rows; row += most.rows) {
      for (std::int64_t key = 0; key < s.keys; key += most.keys) {
        tiles.push_back({static_cast<std::int32_t>(row),
                         static_cast<std::int32_t>(std::min(most.rows, s.rows - row)), 0,
                         static_cast<std::int32_t>(std::min(most.keys, s.keys - key)), key, true});
      }
    }
    intervals.assign(static_cast<std::size_t>(s.rows), {KeyInterval{0, s.keys}, KeyInterval{}});
    queries = {{0, 0, s.rows}};
    keys = {{0, 0, 1, s.keys}};
    geometry = {.batch = s.batch,
                .heads = s.heads,
                .group = s.heads / s.heads_kv,
                .head_dim = s.dim,
                .head_dim_v = s.dim_v,
                .softmax_scale = 1.0 / std::sqrt(static_cast<double>(s.dim)),
                .sequence_keys = s.keys,
                .sequence_rows = s.rows,
                .all_heads = s.heads * s.batch,
                .rows = s.rows,
                .queries = queries,
                .keys = keys,
                .tiles = tiles,
                .intervals = intervals,
                .key_tokens = s.keys,
                .query_tokens = s.rows};
  }
  std::vector<attn::QuerySegment> queries;
  std::vector<attn::KeySegment> keys;
  std::vector<attn::Tile> tiles;
  std::vector<RowIntervals> intervals;
  attn::AttendGeometry geometry;
};

/// Of a launch, in graphs of ten: hosts are slower than short launches.
double median_us(const attn::Kernel& kernel, const attn::ForwardParams& params,
                 attn::LaunchContext context, int repeats) {
  constexpr int kLaunches = 10;
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t instance = nullptr;
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  check_cuda(cudaEventCreate(&begin), "event");
  check_cuda(cudaEventCreate(&end), "event");
  context.stream = stream;
  kernel.forward(params, context);
  check_cuda(cudaStreamSynchronize(stream), "first launch");
  check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  for (int i = 0; i < kLaunches; ++i) kernel.forward(params, context);
  check_cuda(cudaStreamEndCapture(stream, &graph), "capture");
  check_cuda(cudaGraphInstantiate(&instance, graph, 0), "instantiate");
  std::vector<float> times;
  for (int i = -1; i < repeats; ++i) {
    check_cuda(cudaEventRecord(begin, stream), "event");
    check_cuda(cudaGraphLaunch(instance, stream), "replay");
    check_cuda(cudaEventRecord(end, stream), "event");
    check_cuda(cudaEventSynchronize(end), "timed launches");
    float ms = 0.0F;
    check_cuda(cudaEventElapsedTime(&ms, begin, end), "time");
    if (i >= 0) times.push_back(ms);
  }
  check_cuda(cudaEventDestroy(begin), "event");
  check_cuda(cudaEventDestroy(end), "event");
  check_cuda(cudaGraphExecDestroy(instance), "graph");
  check_cuda(cudaGraphDestroy(graph), "graph");
  check_cuda(cudaStreamDestroy(stream), "stream");
  return median(times) * 1000.0 / kLaunches;
}

void time_shape(const attn::Kernel& kernel, const Decode& s, int repeats) {
  const Lists lists(s, kernel);
  const DeviceGeometry geometry(lists.geometry, kernel, TileLists::joined);
  const std::int64_t elements = s.batch * s.rows * s.heads;
  const std::int64_t keys = s.batch * s.keys * s.heads_kv;
  const DeviceBytes q = random_elements(DType::bf16, elements * s.dim, 1);
  const DeviceBytes k = random_elements(DType::bf16, keys * s.dim, 2);
  const DeviceBytes v = random_elements(DType::bf16, keys * s.dim_v, 3);
  const DeviceBytes out(static_cast<std::size_t>(elements * s.dim_v * 2));
  const DeviceBytes lse(static_cast<std::size_t>(elements * 4));
  const DeviceBytes workspace(
      static_cast<std::size_t>(kernel.workspace_bytes(lists.geometry, false, 1)));
  const std::int64_t row = s.heads * s.dim;
  const std::int64_t row_out = s.heads * s.dim_v;
  const std::int64_t token = s.heads_kv * s.dim;
  const std::int64_t token_v = s.heads_kv * s.dim_v;
  attn::ForwardParams params{.geometry = geometry.geometry(),
                             .q = {q.data(), DType::bf16, s.rows * row, row, s.dim},
                             .k = {k.data(), DType::bf16, s.keys * token, token, s.dim},
                             .v = {v.data(), DType::bf16, s.keys * token_v, token_v, s.dim_v},
                             .out = {out.data(), DType::bf16, s.rows * row_out, row_out, s.dim_v},
                             .lse = {lse.data(), DType::f32, s.rows * s.heads, s.heads, 1},
                             .state = {}};
  attn::LaunchContext context;
  context.workspace = {workspace.data(), workspace.size()};
  const attn::TileLimits tiles = tiles_for_shape(s, kernel);
  const auto split_of = [&](bool deterministic) {
    return attn::sm90::split_of(params.geometry, static_cast<int>(tiles.keys),
                                attn::sm90::multiprocessors(),
                                static_cast<std::int64_t>(workspace.size()), deterministic);
  };
  const attn::sm90::Split split = split_of(false);
  const double bytes = 2.0 * static_cast<double>(keys * (s.dim + s.dim_v));
  const auto print = [&](const char* what) {
    const double us = median_us(kernel, params, context, repeats);
    std::printf("  %s%9.1f us %5.0f GB/s", what, us, bytes / us * 1e-3);
  };
  std::printf("%-44s %2d parts of %d heads", name_of(s).c_str(), split.parts, split.group);
  print("");
  if (split.group > 1) {
    // Packed heads take more room than parts do.
    context.workspace = context.workspace.first(
        static_cast<std::size_t>(attn::sm90::split_bytes(params.geometry, split) - 1));
    print("not packed");
    context.workspace = {workspace.data(), workspace.size()};
  }
  context.deterministic = true;
  const attn::sm90::Split fixed = split_of(true);
  std::printf("  %2d of %d", fixed.parts, fixed.group);
  print("deterministic");
  params.geometry.sequence_rows = 0;  // nothing is known of the sequence: nothing is split
  print("whole");
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace

void time_decode(const TimeOptions& options) {
  for (const attn::Kernel* kernel : attn::cuda::kernels()) {
    if (kernel->name != "hopper") continue;
    for (const Decode& s : kShapes) {
      if (name_of(s).find(options.only) == std::string::npos) continue;
      if (!kernel->refuses({DType::bf16, s.dim, s.dim_v, false, "cuda"}).empty()) continue;
      time_shape(*kernel, s, options.repeats);
    }
  }
}

}  // namespace annulus::testing
