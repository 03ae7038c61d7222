// Causal attention beside OpenBLAS sgemm on the same threads, interleaved, by exact FLOPs:
// bench_cpu [kernel] [rounds] [seq] [heads] [head_dim] [threads] [heads per key/value head]
#include "tests/kernels/bench_launch.h"

#include <cblas.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace annulus;

constexpr int kSgemm = 2048;

template <typename Fn>
double seconds(Fn&& fn) {
  const auto start = std::chrono::steady_clock::now();
  fn();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1) + 0.5)];
}

/// C = A B of kSgemm; GFLOP/s.
class Sgemm {
 public:
  Sgemm() : a_(kSgemm * kSgemm), b_(a_.size()), c_(a_.size()) {
    std::mt19937 generator(5);
    std::normal_distribution<float> normal;
    for (float& x : a_) x = normal(generator);
    for (float& x : b_) x = normal(generator);
  }

  double rate() {
    const double took = seconds([&] {
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, kSgemm, kSgemm, kSgemm, 1.0F,
                  a_.data(), kSgemm, b_.data(), kSgemm, 0.0F, c_.data(), kSgemm);
    });
    return 2.0 * kSgemm * kSgemm * kSgemm / took * 1e-9;
  }

 private:
  std::vector<float> a_, b_, c_;
};

struct Series {
  std::string name;
  std::vector<double> rates, ratios;  ///< one of each a round

  void add(double rate, double sgemm) {
    rates.push_back(rate);
    ratios.push_back(rate / sgemm);
  }
  void print() const {
    std::printf("%-24s %8.1f GFLOP/s", name.c_str(), quantile(rates, 0.5));
    if (!ratios.empty()) {
      std::printf("   %.3f of sgemm (%.3f .. %.3f)", quantile(ratios, 0.5), quantile(ratios, 0.1),
                  quantile(ratios, 0.9));
    }
    std::printf("\n");
  }
};

struct Case {
  bench::BenchLaunch launch;
  Series forward, both;

  void warm_up() {
    launch.forward();
    launch.backward();
  }

  void run(double sgemm) {
    const double product = launch.exact_product_flops() * 1e-9;
    const double first = seconds([&] { launch.forward(); });
    const double second = seconds([&] { launch.backward(); });
    forward.add(2.0 * product / first, sgemm);
    both.add(7.0 * product / (first + second), sgemm);
  }
};

std::int64_t argument(int argc, char** argv, int i, std::int64_t otherwise) {
  return argc > i ? std::atoll(argv[i]) : otherwise;
}

}  // namespace

int main(int argc, char** argv) {
  const attn::Kernel& kernel = attn::find_kernel(argc > 1 ? argv[1] : "flash2", {});
  const std::int64_t rounds = argument(argc, argv, 2, 7);
  bench::Setup setup{.seq = argument(argc, argv, 3, 4096),
                     .heads = argument(argc, argv, 4, 8),
                     .group = argument(argc, argv, 7, 1),
                     .dim = argument(argc, argv, 5, 128)};
  const auto threads = static_cast<int>(argument(argc, argv, 6, 2));
  openblas_set_num_threads(threads);
  Sgemm sgemm;
  Series gemm{"sgemm 2048", {}, {}};
  std::vector<Case> cases;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    setup.dtype = dtype;
    const std::string name(name_of(dtype));
    cases.push_back({bench::BenchLaunch(kernel, setup, threads),
                     {name + " forward", {}, {}},
                     {name + " forward+backward", {}, {}}});
  }
  sgemm.rate();  // warms up
  for (Case& c : cases) c.warm_up();
  for (std::int64_t round = 0; round < rounds; ++round) {
    for (Case& c : cases) {
      gemm.rates.push_back(sgemm.rate());
      c.run(gemm.rates.back());
    }
  }
  gemm.print();
  for (const Case& c : cases) {
    c.forward.print();
    c.both.print();
  }
}
