#include "tests/gpu/time_kernels.h"

#include "attention/kernels/cuda/table.h"
#include "tests/gpu/device_kernel.h"

#include <annulus/error.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <functional>
#include <random>
#include <string_view>
#include <vector>

namespace annulus::testing {

namespace {

struct Case {
  DType dtype;
  std::int64_t dim;
  bool causal;
  std::int64_t seq;
};

/// Geometry of whole sequences with the tiles that a causal or full mask leaves.
struct Sequences {
  explicit Sequences(const Case& c, const attn::Kernel& kernel) {
    const std::int64_t seq = c.seq;
    for (std::int64_t i = 0; i < seq; ++i) {
      intervals.push_back({KeyInterval{0, c.causal ? i + 1 : seq}, KeyInterval{}});
    }
    for (std::int64_t row = 0; row < seq; row += kernel.tile_q) {
      const std::int64_t end = c.causal ? row + kernel.tile_q : seq;
      for (std::int64_t key = 0; key < end; key += kernel.tile_k) {
        const bool full = !c.causal || key + kernel.tile_k <= row + 1;
        tiles.push_back({static_cast<std::int32_t>(row), static_cast<std::int32_t>(kernel.tile_q),
                         0, static_cast<std::int32_t>(kernel.tile_k), key, full});
      }
    }
    queries = {{0, 0, seq}};
    keys = {{0, 0, 1, seq, nullptr}};
    geometry = {.batch = std::max<std::int64_t>(1, 16384 / seq),
                .heads = 16,
                .head_dim = c.dim,
                .head_dim_v = c.dim,
                .softmax_scale = 1.0 / std::sqrt(static_cast<double>(c.dim)),
                .rows = seq,
                .queries = queries,
                .keys = keys,
                .tiles = tiles,
                .intervals = intervals,
                .key_tokens = seq,
                .query_tokens = seq};
    pairs = static_cast<double>(c.causal ? seq * (seq + 1) / 2 : seq * seq) * 16.0 *
            static_cast<double>(geometry.batch);
  }
  std::vector<attn::QuerySegment> queries;
  std::vector<attn::KeySegment> keys;
  std::vector<attn::Tile> tiles;
  std::vector<RowIntervals> intervals;
  attn::AttendGeometry geometry;
  double pairs = 0.0;
};

/// Normal values, for what a GPU can sustain depends on them; a block of them again and again.
DeviceBytes random_elements(DType dtype, std::int64_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<std::uint16_t> block(std::size_t{1} << 20);
  for (std::uint16_t& x : block) {
    const auto bits = std::bit_cast<std::uint32_t>(normal(generator));
    const auto exponent = static_cast<int>((bits >> 23) & 255U) - 112;
    const std::uint32_t half =
        exponent <= 0 ? 0U : (static_cast<std::uint32_t>(exponent) << 10) | ((bits >> 13) & 1023U);
    x = static_cast<std::uint16_t>(dtype == DType::bf16 ? bits >> 16
                                                        : ((bits >> 16) & 0x8000U) | half);
  }
  DeviceBytes memory(static_cast<std::size_t>(count * 2));
  for (std::size_t at = 0; at < memory.size(); at += block.size() * 2) {
    check_cuda(cudaMemcpy(memory.data() + at, block.data(),
                          std::min(block.size() * 2, memory.size() - at), cudaMemcpyHostToDevice),
               "upload");
  }
  return memory;
}

double median_ms(int repeats, const std::function<void()>& fn) {
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  check_cuda(cudaEventCreate(&begin), "cudaEventCreate");
  check_cuda(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<float> times;
  for (int i = repeats == 1 ? 0 : -3; i < repeats; ++i) {
    check_cuda(cudaEventRecord(begin), "cudaEventRecord");
    fn();
    check_cuda(cudaEventRecord(end), "cudaEventRecord");
    check_cuda(cudaEventSynchronize(end), "timed launch");
    float ms = 0.0F;
    check_cuda(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    if (i >= 0) times.push_back(ms);
  }
  check_cuda(cudaEventDestroy(begin), "cudaEventDestroy");
  check_cuda(cudaEventDestroy(end), "cudaEventDestroy");
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return static_cast<double>(*middle);
}

void time_case(const attn::Kernel& kernel, const Case& c, const TimeOptions& options) {
  const Sequences s(c, kernel);
  const DeviceGeometry geometry(s.geometry, kernel);
  const std::int64_t token = 16 * c.dim;
  const std::int64_t elements = s.geometry.batch * c.seq * token;
  const std::int64_t rows = s.geometry.batch * c.seq * 16;
  const DeviceBytes q = random_elements(c.dtype, elements, 1);
  const DeviceBytes k = random_elements(c.dtype, elements, 2);
  const DeviceBytes v = random_elements(c.dtype, elements, 3);
  const DeviceBytes dout = random_elements(c.dtype, elements, 4);
  const DeviceBytes out(static_cast<std::size_t>(elements * 2));
  const DeviceBytes lse(static_cast<std::size_t>(rows * 4)), delta(lse.size());
  const DeviceBytes dq(static_cast<std::size_t>(elements * 4)), dk(dq.size()), dv(dq.size());
  check_cuda(cudaMemset(delta.data(), 0, delta.size()), "cudaMemset");
  const DeviceBytes workspace(static_cast<std::size_t>(
      std::max({std::int64_t{16}, kernel.workspace_bytes(s.geometry, true, 1),
                kernel.workspace_bytes(s.geometry, false, 1)})));
  const auto input = [&](const DeviceBytes& b) {
    return attn::Input{b.data(), c.dtype, c.seq * token, token, c.dim};
  };
  const auto f32 = [&](const DeviceBytes& b, std::int64_t dim) {
    return attn::Output{b.data(), DType::f32, c.seq * 16 * dim, 16 * dim, dim};
  };
  const attn::Output l = f32(lse, 1);
  const attn::Input lse_in{l.data, l.dtype, l.batch_stride, l.token_stride, l.head_stride};
  attn::Input delta_in = lse_in;
  delta_in.data = delta.data();
  const attn::ForwardParams forward{.geometry = geometry.geometry(),
                                    .q = input(q),
                                    .k = input(k),
                                    .v = input(v),
                                    .out = {out.data(), c.dtype, c.seq * token, token, c.dim},
                                    .lse = l,
                                    .state = {}};
  const attn::BackwardParams backward{.geometry = geometry.geometry(),
                                      .q = input(q),
                                      .k = input(k),
                                      .v = input(v),
                                      .dout = input(dout),
                                      .lse = lse_in,
                                      .delta = delta_in,
                                      .dq = f32(dq, c.dim),
                                      .dk = f32(dk, c.dim),
                                      .dv = f32(dv, c.dim),
                                      .dq_assign = true,
                                      .dkv_assign = true};
  attn::LaunchContext context;
  context.workspace = {workspace.data(), workspace.size()};
  context.deterministic = options.deterministic;
  const double forward_ms = median_ms(options.repeats, [&] { kernel.forward(forward, context); });
  const double backward_ms =
      median_ms(options.repeats, [&] { kernel.backward(backward, context); });
  const double gflop = 2.0 * s.pairs * static_cast<double>(c.dim) * 1e-9;
  std::printf("%-5s %4d %-6s %6d x %2d  %9.3f ms %7.1f TFLOP/s  %9.3f ms %7.1f TFLOP/s\n",
              c.dtype == DType::bf16 ? "bf16" : "f16", static_cast<int>(c.dim),
              c.causal ? "causal" : "full", static_cast<int>(c.seq),
              static_cast<int>(s.geometry.batch), forward_ms, 2.0 * gflop / forward_ms, backward_ms,
              5.0 * gflop / backward_ms);
  std::fflush(stdout);
}

}  // namespace

void time_kernels(const TimeOptions& options) {
  const attn::Kernel* timed = nullptr;
  for (const attn::Kernel* kernel : attn::cuda::kernels()) {
    if (kernel->name == options.kernel) timed = kernel;
  }
  if (timed == nullptr) throw InvalidArgument("no kernel " + options.kernel);
  std::printf("%s, 16 heads, random normal inputs, median of %d%s\n", options.kernel.c_str(),
              options.repeats, options.deterministic ? ", deterministic" : "");
  std::printf("dtype  dim mask      seq x  b        forward                    backward\n");
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const std::int64_t dim : {128, 64}) {
      for (const bool causal : {false, true}) {
        for (const std::int64_t seq : {2048, 4096, 8192, 16384, 32768}) {
          if (dtype == DType::f16 && seq != 8192) continue;
          const std::string name = std::string(dtype == DType::bf16 ? "bf16 " : "f16 ") +
                                   std::to_string(dim) + (causal ? " causal " : " full ") +
                                   std::to_string(seq);
          if (name.find(options.only) == std::string::npos) continue;
          const std::string reason = timed->refuses({dtype, dim, dim, false, "cuda"});
          if (reason.empty()) {
            time_case(*timed, {dtype, dim, causal, seq}, options);
          } else {
            std::printf("%s: %s\n", name.c_str(), reason.c_str());
          }
        }
      }
    }
  }
}

}  // namespace annulus::testing
