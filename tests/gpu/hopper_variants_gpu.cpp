// Tunings of the Hopper forward side by side, bf16:
//   hopper_variants_gpu list              names, as "wide 128"
//   hopper_variants_gpu check [NAME...]   numbers against the float64 oracle
//   hopper_variants_gpu time [NAME...]    TFLOP/s by variant, full and causal, 2k to 16k
// NAME: "wide 128", "wide" (of every head dim) or "128"; none: all. check: exit status 1 if one is
// wrong. 77 without a Hopper GPU. tests/gpu/hopper_variants.sh runs each under a deadline.
#include "tests/gpu/device_kernel.h"
#include "tests/gpu/hopper_variants.h"
#include "tests/gpu/shares.h"
#include "tests/gpu/timed_shapes.h"
#include "tests/support/launch.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <vector>

namespace annulus::testing {
namespace {

OracleProblem problem_of(std::int64_t seq, std::int64_t dim) {
  return {.batch = 2,
          .seq = seq,
          .seq_kv = seq,
          .heads = 4,
          .heads_kv = 2,
          .head_dim = dim,
          .head_dim_v = dim,
          .dtype = DType::bf16,
          .terms = {Mask::Causal{}},
          .softmax_scale = 1.0 / std::sqrt(static_cast<double>(dim))};
}

/// Launches that make up one problem.
using Chain = std::vector<TestLaunch>;

std::vector<Chain> chains_for(const HopperVariant& v) {
  const TileGrid grid{v.kernel.tile_q, v.kernel.tile_k};
  std::vector<Chain> chains;
  const auto whole = [&](const OracleProblem& p) {
    chains.push_back({make_launch(p, one_segment(p), grid)});
  };
  for (const std::int64_t seq : {1, 130, 613}) {
    OracleProblem p = problem_of(seq, v.dim);
    whole(p);
    p.terms.clear();
    whole(p);
  }
  OracleProblem p = problem_of(613, v.dim);
  p.terms = {Mask::Window{150, 0}};
  whole(p);
  p.terms = {Mask::Causal{}};
  p.softmax_scale = 1.0;  // maxima grow by much
  whole(p);
  p = problem_of(413, v.dim);
  Chain resumed;
  std::int64_t begin = 0;
  for (const std::int64_t end : {5, 180, 333, 413}) {
    resumed.push_back(make_launch(p, {{begin, begin, 1, end - begin}}, grid));
    begin = end;
  }
  chains.push_back(resumed);
  return chains;
}

double worst_share(const HopperVariant& v, const Chain& chain) {
  const OracleProblem& p = chain.front().problem;
  const OracleInputs inputs = random_inputs(p, 17);
  OracleResult truth = oracle_attention(p, inputs);
  OracleResult naive = naive_attention(p, inputs);
  for (OracleResult* r : {&truth, &naive}) {
    for (auto* gradient : {&r->dq, &r->dk, &r->dv}) gradient->clear();
  }
  const RunResult result = run_kernel(on_device(v.kernel, false), chain, inputs,
                                      {.gap = 8, .gap_step = 8, .backward = false});
  const Shares shares = shares_of(result.values, truth, naive);
  return result.gaps_untouched ? std::max(shares.out, shares.lse) : HUGE_VAL;
}

/// Is it right? Errors are shares of the bound, as in kernels_gpu.
bool check(const HopperVariant& v) {
  std::printf("%-12s %3d ", v.name.c_str(), static_cast<int>(v.dim));
  bool right = true;
  for (const Chain& chain : chains_for(v)) {
    const double share = worst_share(v, chain);
    std::printf(" %.2f", share);
    std::fflush(stdout);
    right = right && share <= 1.0;
  }
  std::printf("  %s\n", right ? "ok" : "FAIL");
  return right;
}

/// Operands of one shape, which all variants share.
struct Tensors {
  explicit Tensors(const TimedShape& s)
      : batch(std::max<std::int64_t>(1, 16384 / s.seq)),
        elements(batch * s.seq * 16 * s.dim),
        q(random_elements(s.dtype, elements, 1)),
        k(random_elements(s.dtype, elements, 2)),
        v(random_elements(s.dtype, elements, 3)),
        out(static_cast<std::size_t>(elements * 2)),
        lse(static_cast<std::size_t>(batch * s.seq * 16 * 4)) {
    // Launches overlap on streams of their own; the legacy one has rules beside.
    check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  ~Tensors() { cudaStreamDestroy(stream); }
  Tensors(const Tensors&) = delete;
  Tensors& operator=(const Tensors&) = delete;

  std::int64_t batch, elements;
  DeviceBytes q, k, v, out, lse;
  cudaStream_t stream = nullptr;
};

/// One variant at one shape, ready to be launched.
class Timed {
 public:
  Timed(const HopperVariant& variant, const TimedShape& shape, const Tensors& t)
      : kernel_(variant.kernel),
        sequences_(shape, kernel_),
        geometry_(sequences_.geometry, kernel_),
        workspace_(
            static_cast<std::size_t>(kernel_.workspace_bytes(sequences_.geometry, false, 1))) {
    const std::int64_t token = 16 * shape.dim;
    const auto input = [&](const DeviceBytes& b) {
      return attn::Input{b.data(), shape.dtype, shape.seq * token, token, shape.dim};
    };
    params_ = {.geometry = geometry_.geometry(),
               .q = input(t.q),
               .k = input(t.k),
               .v = input(t.v),
               .out = {t.out.data(), shape.dtype, shape.seq * token, token, shape.dim},
               .lse = {t.lse.data(), DType::f32, shape.seq * 16, 16, 1},
               .state = {}};
    context_.workspace = {workspace_.data(), workspace_.size()};
    context_.stream = t.stream;
    check_cuda(cudaEventCreate(&begin_), "cudaEventCreate");
    check_cuda(cudaEventCreate(&end_), "cudaEventCreate");
  }
  ~Timed() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

  void launch() { kernel_.forward(params_, context_); }
  void launch_timed() {
    check_cuda(cudaEventRecord(begin_, stream()), "cudaEventRecord");
    launch();
    check_cuda(cudaEventRecord(end_, stream()), "cudaEventRecord");
  }
  void note() {
    float ms = 0.0F;
    check_cuda(cudaEventElapsedTime(&ms, begin_, end_), "cudaEventElapsedTime");
    times_.push_back(ms);
  }
  double tflops(std::int64_t dim) const {
    return 4.0 * sequences_.pairs * static_cast<double>(dim) * 1e-9 / median(times_);
  }

 private:
  cudaStream_t stream() const { return static_cast<cudaStream_t>(context_.stream); }

  attn::Kernel kernel_;
  TimedSequences sequences_;
  DeviceGeometry geometry_;
  DeviceBytes workspace_;
  attn::ForwardParams params_;
  attn::LaunchContext context_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  std::vector<float> times_;
};

constexpr int kWarmUp = 3;
constexpr int kRounds = 30;

/// A round launches each once, beginning with another each time, behind a launch that does not
/// count: the host is ahead of the device when the first that counts begins.
void time_shape(const std::vector<HopperVariant>& variants, const TimedShape& shape) {
  const Tensors tensors(shape);
  std::vector<std::unique_ptr<Timed>> timed;
  for (const HopperVariant& v : variants) {
    timed.push_back(std::make_unique<Timed>(v, shape, tensors));
  }
  for (int round = -kWarmUp; round < kRounds; ++round) {
    timed.front()->launch();
    for (std::size_t i = 0; i < timed.size(); ++i) {
      timed[(i + static_cast<std::size_t>(round + kWarmUp)) % timed.size()]->launch_timed();
    }
    check_cuda(cudaDeviceSynchronize(), "timed launches");
    for (const auto& t : timed) {
      if (round >= 0) t->note();
    }
  }
  std::printf("%-6s %5d x %d", shape.causal ? "causal" : "full", static_cast<int>(shape.seq),
              static_cast<int>(tensors.batch));
  for (const auto& t : timed) std::printf(" %10.1f", t->tflops(shape.dim));
  std::printf("\n");
  std::fflush(stdout);
}

void time_all(const std::vector<HopperVariant>& all) {
  for (const std::int64_t dim : {128, 64}) {
    std::vector<HopperVariant> variants;
    for (const HopperVariant& v : all) {
      if (v.dim == dim) variants.push_back(v);
    }
    if (variants.empty()) continue;
    std::printf("bf16, head dim %d, 16 heads, TFLOP/s, median of %d, interleaved\n%-15s",
                static_cast<int>(dim), kRounds, "mask    seq x b");
    for (const HopperVariant& v : variants) std::printf(" %10s", v.name.c_str());
    std::printf("\n");
    for (const bool causal : {false, true}) {
      for (const std::int64_t seq : {2048, 4096, 8192, 16384}) {
        time_shape(variants, {DType::bf16, dim, causal, seq});
      }
    }
  }
}

bool asked_for(const HopperVariant& v, const std::vector<std::string>& names) {
  const std::string dim = std::to_string(v.dim);
  return names.empty() || std::any_of(names.begin(), names.end(), [&](const std::string& name) {
           return name == v.name || name == dim || name == v.name + " " + dim;
         });
}

int run(const std::string& what, const std::vector<std::string>& names) {
  std::vector<HopperVariant> chosen;
  for (HopperVariant& v : hopper_variants()) {
    if (asked_for(v, names)) chosen.push_back(std::move(v));
  }
  if (what == "list") {
    for (const HopperVariant& v : chosen) {
      std::printf("%s %d\n", v.name.c_str(), static_cast<int>(v.dim));
    }
    return 0;
  }
  const std::string reason =
      chosen.empty()
          ? "no such variant"
          : chosen[0].kernel.refuses({DType::bf16, chosen[0].dim, chosen[0].dim, false, "cuda"});
  if (!reason.empty()) {
    std::printf("skipped: %s\n", reason.c_str());
    return chosen.empty() ? 2 : 77;
  }
  if (what == "time") {
    time_all(chosen);
    return 0;
  }
  int wrong = 0;
  for (const HopperVariant& v : chosen) wrong += check(v) ? 0 : 1;
  return wrong == 0 ? 0 : 1;
}

}  // namespace
}  // namespace annulus::testing

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what != "list" && what != "check" && what != "time") {
    std::fprintf(stderr, "hopper_variants_gpu list | check [NAME...] | time [NAME...]\n");
    return 2;
  }
  try {
    return annulus::testing::run(what, {argv + 2, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
