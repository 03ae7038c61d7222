#include "tests/gpu/time_kernels.h"

#include "attention/kernels/cuda/table.h"
#include "tests/gpu/device_kernel.h"
#include "tests/gpu/timed_shapes.h"

#include <annulus/error.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace annulus::testing {

namespace {

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
  return median(times);
}

/// The others of flash2 take the plain path, seconds each.
bool is_timed(const attn::Kernel& kernel, const TimedShape& c) {
  return kernel.name == "hopper" || (c.values() == c.dim && (c.dim == 128 || c.dim == 64));
}

void time_case(const attn::Kernel& kernel, const TimedShape& c, const TimeOptions& options) {
  const TimedSequences s(c, kernel);
  const DeviceGeometry geometry(s.geometry, kernel);
  const TimedSequences back(c, kernel, true);
  const DeviceGeometry back_geometry(back.geometry, kernel);
  const std::int64_t token = 16 * c.dim;
  const std::int64_t token_v = 16 * c.values();
  const std::int64_t elements = s.geometry.batch * c.seq * token;
  const std::int64_t elements_v = s.geometry.batch * c.seq * token_v;
  const std::int64_t rows = s.geometry.batch * c.seq * 16;
  const DeviceBytes q = random_elements(c.dtype, elements, 1);
  const DeviceBytes k = random_elements(c.dtype, elements, 2);
  const DeviceBytes v = random_elements(c.dtype, elements_v, 3);
  const DeviceBytes dout = random_elements(c.dtype, elements_v, 4);
  const DeviceBytes out(static_cast<std::size_t>(elements_v * 2));
  const DeviceBytes lse(static_cast<std::size_t>(rows * 4)), delta(lse.size());
  const DeviceBytes dq(static_cast<std::size_t>(elements * 4)), dk(dq.size());
  const DeviceBytes dv(static_cast<std::size_t>(elements_v * 4));
  check_cuda(cudaMemset(delta.data(), 0, delta.size()), "cudaMemset");
  const DeviceBytes workspace(static_cast<std::size_t>(
      std::max({std::int64_t{16}, kernel.workspace_bytes(back.geometry, true, 1),
                kernel.workspace_bytes(s.geometry, false, 1)})));
  const auto input = [&](const DeviceBytes& b) {
    return attn::Input{b.data(), c.dtype, c.seq * token, token, c.dim};
  };
  const auto values = [&](const DeviceBytes& b) {
    return attn::Input{b.data(), c.dtype, c.seq * token_v, token_v, c.values()};
  };
  const auto f32 = [&](const DeviceBytes& b, std::int64_t dim) {
    return attn::Output{b.data(), DType::f32, c.seq * 16 * dim, 16 * dim, dim};
  };
  const attn::Output l = f32(lse, 1);
  const attn::Input lse_in{l.data, l.dtype, l.batch_stride, l.token_stride, l.head_stride};
  attn::Input delta_in = lse_in;
  delta_in.data = delta.data();
  const attn::ForwardParams forward{
      .geometry = geometry.geometry(),
      .q = input(q),
      .k = input(k),
      .v = values(v),
      .out = {out.data(), c.dtype, c.seq * token_v, token_v, c.values()},
      .lse = l,
      .state = {}};
  const attn::BackwardParams backward{.geometry = back_geometry.geometry(),
                                      .q = input(q),
                                      .k = input(k),
                                      .v = values(v),
                                      .dout = values(dout),
                                      .lse = lse_in,
                                      .delta = delta_in,
                                      .dq = f32(dq, c.dim),
                                      .dk = f32(dk, c.dim),
                                      .dv = f32(dv, c.values()),
                                      .dq_assign = true,
                                      .dkv_assign = true};
  attn::LaunchContext context;
  context.workspace = {workspace.data(), workspace.size()};
  context.deterministic = options.deterministic;
  const double forward_ms = median_ms(options.repeats, [&] { kernel.forward(forward, context); });
  const double gflop = 2.0 * s.pairs * 1e-9;
  std::printf("%-5s %4d:%-4d %-6s %6d x %2d  %9.3f ms %7.1f TFLOP/s",
              c.dtype == DType::bf16 ? "bf16" : "f16", static_cast<int>(c.dim),
              static_cast<int>(c.values()), c.causal ? "causal" : "full", static_cast<int>(c.seq),
              static_cast<int>(s.geometry.batch), forward_ms,
              gflop * static_cast<double>(c.dim + c.values()) / forward_ms);
  if (!options.forward) {
    const double backward_ms =
        median_ms(options.repeats, [&] { kernel.backward(backward, context); });
    std::printf("  %9.3f ms %7.1f TFLOP/s", backward_ms,
                gflop * static_cast<double>(3 * c.dim + 2 * c.values()) / backward_ms);
  }
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace

void time_kernels(const TimeOptions& options) {
  constexpr std::pair<std::int64_t, std::int64_t> kTimedDims[] = {
      {128, 128}, {64, 64}, {96, 96}, {192, 128}, {192, 192}, {256, 256}};
  const attn::Kernel* timed = nullptr;
  for (const attn::Kernel* kernel : attn::cuda::kernels()) {
    if (kernel->name == options.kernel) timed = kernel;
  }
  if (timed == nullptr) throw InvalidArgument("no kernel " + options.kernel);
  std::printf("%s, 16 heads, random normal inputs, median of %d%s\n", options.kernel.c_str(),
              options.repeats, options.deterministic ? ", deterministic" : "");
  std::printf("dtype  dim:v  mask      seq x  b        forward                    backward\n");
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const auto& [dim, dim_v] : kTimedDims) {
      for (const bool causal : {false, true}) {
        for (const std::int64_t seq : {2048, 4096, 8192, 16384, 32768}) {
          if (dtype == DType::f16 && seq != 8192) continue;
          const TimedShape shape{dtype, dim, causal, seq, dim_v};
          const std::string name = name_of(shape);
          if (name.find(options.only) == std::string::npos) continue;
          if (!is_timed(*timed, shape)) continue;
          const std::string reason = timed->refuses({dtype, dim, dim_v, false, "cuda"});
          if (reason.empty()) {
            time_case(*timed, shape, options);
          } else {
            std::printf("%s: %s\n", name.c_str(), reason.c_str());
          }
        }
      }
    }
  }
}

}  // namespace annulus::testing
