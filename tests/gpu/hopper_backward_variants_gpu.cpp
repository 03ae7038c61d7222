// Tunings of the Hopper backward side by side, bf16:
//   hopper_backward_variants_gpu list              names, as "copies 128"
//   hopper_backward_variants_gpu check [NAME...]   numbers against the float64 oracle
//   hopper_backward_variants_gpu time [NAME...]    TFLOP/s by variant, full and causal, 2k to 16k
//   hopper_backward_variants_gpu trace [NAME...]   clocks a step by phase, of those that say so
// NAME: "copies 128", "copies" (of both head dims) or "128"; none: all. check: exit status 1 if one
// is wrong; those that are wrong on purpose (timing alone) are not looked at. 77 without a Hopper
// GPU. tests/gpu/hopper_backward_variants.sh runs each under a deadline.
#include "attention/kernels/sm90/backward_phases.h"
#include "tests/gpu/device_kernel.h"
#include "tests/gpu/hopper_backward_variants.h"
#include "tests/gpu/shares.h"
#include "tests/gpu/timed_shapes.h"
#include "tests/support/launch.h"

#include <algorithm>
#include <array>
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

std::vector<OracleProblem> problems_for(std::int64_t dim) {
  std::vector<OracleProblem> problems;
  for (const std::int64_t seq : {1, 130, 613}) {
    problems.push_back(problem_of(seq, dim));
    problems.push_back(problem_of(seq, dim));
    problems.back().terms.clear();
  }
  problems.push_back(problem_of(613, dim));
  problems.back().terms = {Mask::Window{150, 0}};
  problems.push_back(problem_of(257, dim));
  problems.back().heads = 8;  // groups of 4
  return problems;
}

double worst_share(const HopperBackwardVariant& v, const OracleProblem& p,
                   const OracleInputs& inputs, const OracleResult& truth, const OracleResult& naive,
                   bool ordered) {
  const TileGrid grid{v.kernel.tile_q, v.kernel.tile_k};
  const RunResult result =
      run_kernel(on_device(v.kernel, ordered), {make_launch(p, one_segment(p), grid)}, inputs,
                 {.gap = 8, .gap_step = 8});
  const Shares shares = shares_of(result.values, truth, naive);
  return result.gaps_untouched ? std::max({shares.dq, shares.dk, shares.dv}) : HUGE_VAL;
}

/// Is it right? Errors are shares of the bound, as in kernels_gpu, of any order and of turns.
bool check(const HopperBackwardVariant& v) {
  std::printf("%-16s %3d ", v.name.c_str(), static_cast<int>(v.dim));
  if (!v.right || v.uncleared) {
    std::printf(" not checked: for timing alone\n");
    return true;
  }
  bool right = true;
  for (const OracleProblem& p : problems_for(v.dim)) {
    const OracleInputs inputs = random_inputs(p, 17);
    const OracleResult truth = oracle_attention(p, inputs);
    const OracleResult naive = naive_attention(p, inputs);
    for (const bool ordered : {false, true}) {
      const double share = worst_share(v, p, inputs, truth, naive, ordered);
      std::printf(" %.2f", share);
      std::fflush(stdout);
      right = right && share <= 1.0;
    }
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
        dout(random_elements(s.dtype, elements, 4)),
        out(bytes(elements * 2)),
        lse(bytes(batch * s.seq * 16 * 4)),
        delta(lse.size()),
        dq(bytes(elements * 4)),
        dk(dq.size()),
        dv(dq.size()) {
    check_cuda(cudaMemset(delta.data(), 0, delta.size()), "cudaMemset");
    check_cuda(cudaMemset(dq.data(), 0, dq.size()), "cudaMemset");
    check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  ~Tensors() { cudaStreamDestroy(stream); }
  Tensors(const Tensors&) = delete;
  Tensors& operator=(const Tensors&) = delete;
  static std::size_t bytes(std::int64_t n) { return static_cast<std::size_t>(n); }

  std::int64_t batch, elements;
  DeviceBytes q, k, v, dout, out, lse, delta, dq, dk, dv;
  cudaStream_t stream = nullptr;
};

/// FLOP, steps, clocks of phases: as backward_trace.cuh writes them.
using Said = std::array<std::uint64_t, 2 + attn::sm90::kPhases>;

/// One variant at one shape, ready to be launched.
class Timed {
 public:
  Timed(const HopperBackwardVariant& variant, const TimedShape& shape, const Tensors& t)
      : kernel_(variant.kernel),
        sequences_(shape, kernel_),
        geometry_(sequences_.geometry, kernel_),
        workspace_(static_cast<std::size_t>(
            std::max(kernel_.workspace_bytes(sequences_.geometry, true, 1),
                     kernel_.workspace_bytes(sequences_.geometry, false, 1)))),
        said_(sizeof(Said)) {
    const std::int64_t token = 16 * shape.dim;
    const auto input = [&](const DeviceBytes& b) {
      return attn::Input{b.data(), shape.dtype, shape.seq * token, token, shape.dim};
    };
    const auto numbers = [&](const DeviceBytes& b) {
      return attn::Input{b.data(), DType::f32, shape.seq * 16, 16, 1};
    };
    const auto sums = [&](const DeviceBytes& b) {
      return attn::Output{b.data(), DType::f32, shape.seq * token, token, shape.dim};
    };
    forward_ = {.geometry = geometry_.geometry(),
                .q = input(t.q),
                .k = input(t.k),
                .v = input(t.v),
                .out = {t.out.data(), shape.dtype, shape.seq * token, token, shape.dim},
                .lse = {t.lse.data(), DType::f32, shape.seq * 16, 16, 1},
                .state = {}};
    params_ = {.geometry = geometry_.geometry(),
               .q = input(t.q),
               .k = input(t.k),
               .v = input(t.v),
               .dout = input(t.dout),
               .lse = numbers(t.lse),
               .delta = numbers(t.delta),
               .dq = sums(t.dq),
               .dk = sums(t.dk),
               .dv = sums(t.dv),
               .dq_assign = !variant.uncleared,
               .dkv_assign = true};
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

  /// lse is the forward's: with others P would be what no P is.
  void launch_forward() { kernel_.forward(forward_, context_); }
  void launch() { kernel_.backward(params_, context_); }
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
    return 10.0 * sequences_.pairs * static_cast<double>(dim) * 1e-9 / median(times_);
  }
  /// What block 0 of one launch says.
  Said trace() {
    check_cuda(cudaMemset(said_.data(), 0, said_.size()), "cudaMemset");
    context_.flops = reinterpret_cast<std::int64_t*>(said_.data());
    launch();
    check_cuda(cudaDeviceSynchronize(), "traced launch");
    context_.flops = nullptr;
    Said said{};
    said_.read(reinterpret_cast<std::byte*>(said.data()));
    return said;
  }

 private:
  cudaStream_t stream() const { return static_cast<cudaStream_t>(context_.stream); }

  attn::Kernel kernel_;
  TimedSequences sequences_;
  DeviceGeometry geometry_;
  DeviceBytes workspace_, said_;
  attn::ForwardParams forward_;
  attn::BackwardParams params_;
  attn::LaunchContext context_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  std::vector<float> times_;
};

constexpr int kWarmUp = 2;
constexpr int kRounds = 15;

/// A round launches each once, beginning with another each time, behind a launch that does not
/// count: the host is ahead of the device when the first that counts begins.
void time_shape(const std::vector<HopperBackwardVariant>& variants, const TimedShape& shape) {
  const Tensors tensors(shape);
  std::vector<std::unique_ptr<Timed>> timed;
  for (const auto& v : variants) timed.push_back(std::make_unique<Timed>(v, shape, tensors));
  timed.front()->launch_forward();
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
  for (const auto& t : timed) std::printf(" %16.1f", t->tflops(shape.dim));
  std::printf("\n");
  std::fflush(stdout);
}

std::vector<HopperBackwardVariant> of_dim(const std::vector<HopperBackwardVariant>& all,
                                          std::int64_t dim) {
  std::vector<HopperBackwardVariant> some;
  for (const auto& v : all) {
    if (v.dim == dim) some.push_back(v);
  }
  return some;
}

void time_all(const std::vector<HopperBackwardVariant>& all) {
  for (const std::int64_t dim : {128, 64}) {
    const std::vector<HopperBackwardVariant> variants = of_dim(all, dim);
    if (variants.empty()) continue;
    std::printf(
        "bf16, head dim %d, 16 heads, TFLOP/s, median of %d, interleaved; * for timing alone\n",
        static_cast<int>(dim), kRounds);
    std::printf("%-15s", "mask    seq x b");
    for (const auto& v : variants) std::printf(" %16s", (v.name + (v.right ? "" : "*")).c_str());
    std::printf("\n");
    for (const bool causal : {false, true}) {
      for (const std::int64_t seq : {2048, 8192, 16384}) {
        time_shape(variants, {DType::bf16, dim, causal, seq});
      }
    }
  }
}

void trace_shape(const HopperBackwardVariant& v, const TimedShape& shape) {
  const Tensors tensors(shape);
  Timed timed(v, shape, tensors);
  timed.launch_forward();
  timed.launch();
  const Said said = timed.trace();
  const auto steps = static_cast<double>(std::max<std::uint64_t>(1, said[1]));
  std::printf("%-14s %3d %-6s %6d %8.0f", v.name.c_str(), static_cast<int>(v.dim),
              shape.causal ? "causal" : "full", static_cast<int>(shape.seq), steps);
  double all = 0.0;
  for (int i = 0; i < attn::sm90::kPhases; ++i) {
    const double clocks = static_cast<double>(said[static_cast<std::size_t>(2 + i)]) / steps;
    all += clocks;
    std::printf(" %8.0f", clocks);
  }
  std::printf(" %8.0f\n", all);
  std::fflush(stdout);
}

void trace_all(const std::vector<HopperBackwardVariant>& all) {
  std::printf("clocks a step of block 0, by what they lead to; of tensor cores it takes 2560\n");
  std::printf("%-14s %3s %-6s %6s %8s", "", "dim", "mask", "seq", "steps");
  for (const char* name : attn::sm90::kPhaseNames) std::printf(" %8s", name);
  std::printf(" %8s\n", "all");
  for (const auto& v : all) {
    if (!v.traced) continue;
    for (const bool causal : {false, true}) {
      for (const std::int64_t seq : {2048, 8192}) {
        trace_shape(v, {DType::bf16, v.dim, causal, seq});
      }
    }
  }
}

bool asked_for(const HopperBackwardVariant& v, const std::vector<std::string>& names) {
  const std::string dim = std::to_string(v.dim);
  return names.empty() || std::any_of(names.begin(), names.end(), [&](const std::string& name) {
           return name == v.name || name == dim || name == v.name + " " + dim;
         });
}

int run(const std::string& what, const std::vector<std::string>& names) {
  std::vector<HopperBackwardVariant> chosen;
  for (HopperBackwardVariant& v : hopper_backward_variants()) {
    if (asked_for(v, names)) chosen.push_back(std::move(v));
  }
  if (what == "list") {
    for (const auto& v : chosen) std::printf("%s %d\n", v.name.c_str(), static_cast<int>(v.dim));
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
  if (what == "trace") {
    trace_all(chosen);
    return 0;
  }
  int wrong = 0;
  for (const auto& v : chosen) wrong += check(v) ? 0 : 1;
  return wrong == 0 ? 0 : 1;
}

}  // namespace
}  // namespace annulus::testing

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what != "list" && what != "check" && what != "time" && what != "trace") {
    std::fprintf(stderr,
                 "hopper_backward_variants_gpu list | check [NAME...] | time [NAME...] | trace\n");
    return 2;
  }
  try {
    return annulus::testing::run(what, {argv + 2, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
