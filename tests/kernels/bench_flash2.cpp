// GFLOP/s of a local kernel, forward and backward, by the FLOPs that it counts:
// bench_flash2 [kernel] [seq] [head_dim] [threads]
#include "tests/kernels/bench_launch.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

using namespace annulus;
using bench::BenchLaunch;
using bench::Setup;

template <typename Fn>
void report(const char* what, const Setup& s, Fn&& fn) {
  double best = 0.0;
  for (int run = 0; run < 4; ++run) {
    const auto start = std::chrono::steady_clock::now();
    const std::int64_t flops = fn();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(flops) / took.count() * 1e-9);
  }
  std::printf("%-8s %-5s %s seq %lld dim %lld  %7.2f GFLOP/s\n", what,
              std::string(name_of(s.dtype)).c_str(), s.causal ? "causal" : "full  ",
              static_cast<long long>(s.seq), static_cast<long long>(s.dim), best);
}

}  // namespace

int main(int argc, char** argv) {
  const attn::Kernel& kernel = attn::find_kernel(argc > 1 ? argv[1] : "flash2", {});
  const std::int64_t seq = argc > 2 ? std::atoll(argv[2]) : 1024;
  const std::int64_t dim = argc > 3 ? std::atoll(argv[3]) : 128;
  const int threads = argc > 4 ? std::atoi(argv[4]) : 1;
  for (const bool causal : {true, false}) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      const Setup setup{.dtype = dtype, .seq = seq, .group = 2, .dim = dim, .causal = causal};
      BenchLaunch launch(kernel, setup, threads);
      report("forward", setup, [&] { return launch.forward(); });
      report("backward", setup, [&] { return launch.backward(); });
    }
  }
}
