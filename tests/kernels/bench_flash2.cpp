// GFLOP/s of a local kernel, forward and backward: bench_flash2 [kernel] [seq] [head_dim] [threads]
#include "attention/kernels/dispatch.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace annulus;
using namespace annulus::attn;

struct Setup {
  DType dtype = DType::f32;
  std::int64_t seq = 1024, heads = 8, group = 2, dim = 128;
  bool causal = true;
};

/// Compact tensor of small values; what they are does not matter for the time.
std::vector<std::byte> make_tensor(DType dtype, std::int64_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<std::byte> bytes(static_cast<std::size_t>(n * size_of(dtype)));
  for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
    const float x = std::normal_distribution<float>()(generator);
    if (dtype == DType::f32) {
      reinterpret_cast<float*>(bytes.data())[i] = x;
    } else {  // bf16, cut; read as f16 it is a number too
      std::uint32_t bits = 0;
      static_assert(sizeof bits == sizeof x);
      __builtin_memcpy(&bits, &x, sizeof x);
      reinterpret_cast<std::uint16_t*>(bytes.data())[i] = static_cast<std::uint16_t>(bits >> 16);
    }
  }
  return bytes;
}

struct Launch {
  std::vector<QuerySegment> queries;
  std::vector<KeySegment> keys;
  std::vector<RowIntervals> intervals;
  std::vector<Tile> tiles;
};

Launch make_launch(const Kernel& kernel, const Setup& s) {
  Launch launch{{{0, 0, s.seq}}, {{0, 0, 1, s.seq, nullptr}}, {}, {}};
  for (std::int64_t i = 0; i < s.seq; ++i) {
    launch.intervals.push_back({KeyInterval{0, s.causal ? i + 1 : s.seq}, KeyInterval{}});
  }
  for (std::int64_t row = 0; row < s.seq; row += kernel.tile_q) {
    const std::int64_t rows = std::min(kernel.tile_q, s.seq - row);
    for (std::int64_t key = 0; key < s.seq; key += kernel.tile_k) {
      const std::int64_t keys = std::min(kernel.tile_k, s.seq - key);
      if (s.causal && key > row + rows - 1) break;
      launch.tiles.push_back({static_cast<std::int32_t>(row), static_cast<std::int32_t>(rows), 0,
                              static_cast<std::int32_t>(keys), key,
                              !s.causal || key + keys - 1 <= row});
    }
  }
  return launch;
}

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

void bench(const Kernel& kernel, const Setup& s, int threads) {
  const Launch launch = make_launch(kernel, s);
  const std::int64_t kv_heads = s.heads / s.group;
  const auto input = [&](std::vector<std::byte>& data, DType dtype, std::int64_t heads) {
    return Input{data.data(), dtype, 0, heads * s.dim, s.dim};
  };
  auto q = make_tensor(s.dtype, s.seq * s.heads * s.dim, 1);
  auto k = make_tensor(s.dtype, s.seq * kv_heads * s.dim, 2);
  auto v = make_tensor(s.dtype, s.seq * kv_heads * s.dim, 3);
  auto dout = make_tensor(s.dtype, s.seq * s.heads * s.dim, 4);
  auto out = q;
  std::vector<float> lse(static_cast<std::size_t>(s.seq * s.heads)), delta(lse.size());
  std::vector<float> dq(static_cast<std::size_t>(s.seq * s.heads * s.dim)), dk(dq), dv(dq);
  const AttendGeometry geometry{.heads = s.heads,
                                .group = s.group,
                                .head_dim = s.dim,
                                .head_dim_v = s.dim,
                                .softmax_scale = 0.088,
                                .rows = s.seq,
                                .queries = launch.queries,
                                .keys = launch.keys,
                                .tiles = launch.tiles,
                                .intervals = launch.intervals};
  const auto rows_f32 = [&](std::vector<float>& data, std::int64_t heads, std::int64_t dim) {
    return Output{data.data(), DType::f32, 0, heads * dim, dim};
  };
  std::vector<std::byte> workspace;
  const auto run = [&](bool backward) {
    std::int64_t flops = 0;
    workspace.resize(static_cast<std::size_t>(kernel.workspace_bytes(geometry, backward, threads)));
    const LaunchContext context{threads, {}, &flops, workspace};
    const Output lse_out = rows_f32(lse, s.heads, 1);
    const Output delta_out = rows_f32(delta, s.heads, 1);
    const Input q_in = input(q, s.dtype, s.heads), k_in = input(k, s.dtype, kv_heads),
                v_in = input(v, s.dtype, kv_heads);
    if (!backward) {
      kernel.forward({geometry,
                      q_in,
                      k_in,
                      v_in,
                      {out.data(), s.dtype, 0, s.heads * s.dim, s.dim},
                      lse_out,
                      {}},
                     context);
    } else {
      kernel.backward({geometry,
                       q_in,
                       k_in,
                       v_in,
                       input(dout, s.dtype, s.heads),
                       {lse_out.data, DType::f32, 0, s.heads, 1},
                       {delta_out.data, DType::f32, 0, s.heads, 1},
                       rows_f32(dq, s.heads, s.dim),
                       rows_f32(dk, kv_heads, s.dim),
                       rows_f32(dv, kv_heads, s.dim),
                       true,
                       true},
                      context);
    }
    return flops;
  };
  report("forward", s, [&] { return run(false); });
  report("backward", s, [&] { return run(true); });
}

}  // namespace

int main(int argc, char** argv) {
  const Kernel& kernel = find_kernel(argc > 1 ? argv[1] : "flash2", {});
  const std::int64_t seq = argc > 2 ? std::atoll(argv[2]) : 1024;
  const std::int64_t dim = argc > 3 ? std::atoll(argv[3]) : 128;
  const int threads = argc > 4 ? std::atoi(argv[4]) : 1;
  for (const bool causal : {true, false}) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      bench(kernel, {.dtype = dtype, .seq = seq, .dim = dim, .causal = causal}, threads);
    }
  }
}
