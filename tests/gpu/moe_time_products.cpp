// Products of experts: a cuBLAS call each on one stream is what the others are held against.
#include "moe/kernels/cuda/blas.h"
#include "moe/kernels/sm90/grouped.h"
#include "tests/gpu/moe_times.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace annulus::testing {

namespace {

using moe::Product;
using moe::cuda::Blas;
using moe::cuda::BlasWay;

/// c[rows][n] = x[rows][k] w[n][k]^T of each expert, or w[k][n], or dw[n][k] += dc^T x in f32.
enum class Form { forward, input_gradient, weight_gradient };
struct Shape {
  const char* name;
  std::vector<std::int64_t> rows;
  std::int64_t n, k;
  Form form = Form::forward;

  bool by_weight() const { return form == Form::weight_gradient; }
};

/// Rows of experts drawn with weight 1 / (e + 1), as `bench --routing zipf` draws.
std::vector<std::int64_t> zipf(std::int64_t experts, std::int64_t total) {
  double sum = 0;
  for (std::int64_t e = 0; e < experts; ++e) sum += 1.0 / static_cast<double>(e + 1);
  std::vector<std::int64_t> rows;
  for (std::int64_t e = 0; e < experts; ++e) {
    rows.push_back(std::llround(static_cast<double>(total) / sum / static_cast<double>(e + 1)));
  }
  return rows;
}

void set_shape(Product& p, std::int64_t m, std::int64_t n, std::int64_t k) {
  p.m = m;
  p.n = n;
  p.k = k;
}

struct Operands {
  explicit Operands(const Shape& s) : experts(static_cast<std::int64_t>(s.rows.size())) {
    std::int64_t total = 0;
    for (const std::int64_t r : s.rows) total += r;
    x = random_bf16(total * s.k);
    other = random_bf16(s.by_weight() ? total * s.n : experts * s.n * s.k);
    result = DeviceBuffer(s.by_weight() ? experts * s.n * s.k * 4 : total * s.n * 2);
    check_cuda(cudaMemset(result.data(), 0, static_cast<std::size_t>(result.bytes())), "result");
    std::int64_t first = 0;
    for (std::int64_t e = 0; e < experts; ++e) {
      const std::int64_t rows = s.rows[static_cast<std::size_t>(e)];
      const std::byte* in = x.data() + first * s.k * 2;
      Product p;
      if (s.by_weight()) {
        set_shape(p, s.n, s.k, rows);
        p.a = {other.data() + first * s.n * 2, DType::bf16, 1, s.n};
        p.b = {in, DType::bf16, s.k, 1};
        p.c = {result.data() + e * s.n * s.k * 4, DType::f32, s.k};
        p.add = true;
      } else {
        set_shape(p, rows, s.n, s.k);
        p.a = {in, DType::bf16, s.k, 1};
        const std::byte* weights = other.data() + e * s.n * s.k * 2;
        p.b = s.form == Form::forward ? moe::Operand{weights, DType::bf16, 1, s.k}
                                      : moe::Operand{weights, DType::bf16, s.n, 1};
        p.c = {result.data() + first * s.n * 2, DType::bf16, s.n};
      }
      products.push_back(p);
      flops += static_cast<double>(p.flops());
      first += rows;
    }
  }
  std::int64_t experts;
  DeviceBuffer x, other, result;
  std::vector<Product> products;
  double flops = 0;
};

using Works = std::vector<moe::cuda::GemmWork>;
struct Way {
  std::string name;
  std::function<void(const Works&)> run;
};

Way by_blas(const char* name, Blas& blas, BlasWay way, cudaStream_t stream) {
  return {name, [&blas, way, stream](const Works& works) {
            blas.set_way(way);
            blas.run(works, stream);
          }};
}

/// Forms of the own kernel, with the band that is the default, and of the first two more bands.
void add_own(std::vector<Way>& ways, cudaStream_t stream) {
  if (!moe::sm90::has_grouped()) return;
  const auto add = [&](moe::sm90::Tuning t, int band) {
    ways.push_back(
        {"own " + std::to_string(moe::sm90::tile_rows_of(t)) + "x" + std::to_string(t.columns) +
             " stages " + std::to_string(t.stages) + " band " + std::to_string(band),
         [=](const Works& works) {
           moe::sm90::launch_grouped(moe::sm90::grouped_of(works).value(), t, band, stream);
         }});
  };
  for (const moe::sm90::Tuning& t : moe::sm90::kTunings) add(t, moe::sm90::kBand);
  for (const int band : {4, 16}) add(moe::sm90::kTunings[0], band);
}

/// Ways take turns, so that clocks and temperature are the same for all.
void time_shape(const Shape& s, const std::vector<Way>& ways, cudaStream_t stream) {
  const Operands operands(s);
  const auto works = moe::cuda::gemms_of(operands.products);
  std::vector<double> us(ways.size(), HUGE_VAL);
  for (int turn = 0; turn < 3; ++turn) {
    for (std::size_t w = 0; w < ways.size(); ++w) {
      us[w] = std::min(us[w], microseconds(stream, 1, [&] { ways[w].run(works); }));
    }
  }
  for (std::size_t w = 0; w < ways.size(); ++w) {
    const std::string text = std::string(s.name) + ", " + ways[w].name;
    const std::string ratio = w == 0 ? "" : std::to_string(us[0] / us[w]).substr(0, 5);
    print_time(text.c_str(), us[w], operands.flops * 1e-6 / us[w], "TFLOP/s", "");
    if (w > 0) std::printf("%62s of the loop\n", ratio.c_str());
  }
}

}  // namespace

DeviceBuffer random_bf16(std::int64_t count) {
  std::mt19937 generator(5);
  std::normal_distribution<float> normal;
  std::vector<std::uint16_t> block(std::size_t{1} << 20);
  for (std::uint16_t& x : block) {
    x = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(normal(generator)) >> 16);
  }
  DeviceBuffer memory(count * 2);
  const auto bytes = static_cast<std::int64_t>(block.size() * 2);
  for (std::int64_t at = 0; at < memory.bytes(); at += bytes) {
    const auto part = static_cast<std::size_t>(std::min(bytes, memory.bytes() - at));
    memory.upload(std::as_bytes(std::span(block)).first(part), at);
  }
  return memory;
}

void time_products() {
  const CudaStream own = make_stream();
  Blas one(1), four(4);
  std::vector<Way> ways{by_blas("loop", one, BlasWay::lanes, own.get()),
                        by_blas("4 streams", four, BlasWay::lanes, own.get())};
  const std::vector<Way> gradients = ways;  // groups and the own kernel have no f32 of bf16
  ways.push_back(by_blas("grouped", one, BlasWay::grouped, own.get()));
  add_own(ways, own.get());
  const auto even = [](std::int64_t experts, std::int64_t rows) {
    return std::vector<std::int64_t>(static_cast<std::size_t>(experts), rows);
  };
  time_shape({"8 x 4096, N 4096 K 7168", even(8, 4096), 4096, 7168}, ways, own.get());
  time_shape({"8 x 4096, N 7168 K 2048", even(8, 4096), 7168, 2048}, ways, own.get());
  time_shape({"32 x 1024, N 4096 K 7168", even(32, 1024), 4096, 7168}, ways, own.get());
  time_shape({"32 Zipf, N 4096 K 7168", zipf(32, 32768), 4096, 7168}, ways, own.get());
  time_shape({"8 x 4096, dX N 7168 K 4096", even(8, 4096), 7168, 4096, Form::input_gradient}, ways,
             own.get());
  time_shape({"32 Zipf, dX N 7168 K 4096", zipf(32, 32768), 7168, 4096, Form::input_gradient}, ways,
             own.get());
  constexpr Form kWeights = Form::weight_gradient;
  time_shape({"8 x 4096, dW f32 4096 x 7168", even(8, 4096), 4096, 7168, kWeights}, gradients,
             own.get());
  time_shape({"32 Zipf, dW f32 4096 x 7168", zipf(32, 32768), 4096, 7168, kWeights}, gradients,
             own.get());
}

}  // namespace annulus::testing
