// Tunings of the Hopper backward side by side, bf16:
//   hopper_backward_variants_gpu list              names, as "copies 128"
//   hopper_backward_variants_gpu check [NAME...]   numbers against the float64 oracle
//   hopper_backward_variants_gpu time [NAME...]    TFLOP/s by variant, full and causal, 2k to 16k
//   hopper_backward_variants_gpu trace [NAME...]   clocks by phase, of those that say so
// NAME: "copies 128", "copies" (of both head dims) or "128"; none: all. check: exit status 1 if one
// is wrong; those that are wrong on purpose (timing alone) are not looked at. 77 without a Hopper
// GPU. tests/gpu/hopper_variants.sh runs each under a deadline.
#include "attention/kernels/sm90/backward_phases.h"
#include "tests/gpu/device_oracle.h"
#include "tests/gpu/hopper_variants.h"
#include "tests/gpu/shares.h"
#include "tests/support/launch.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <vector>

namespace annulus::testing {
namespace {

std::vector<OracleProblem> problems_for(std::int64_t dim) {
  std::vector<OracleProblem> problems;
  for (const std::int64_t seq : {1, 130, 613}) {
    problems.push_back(variant_problem(seq, dim));
    problems.push_back(variant_problem(seq, dim));
    problems.back().terms.clear();
  }
  problems.push_back(variant_problem(613, dim));
  problems.back().terms = {Mask::Window{150, 0}};
  problems.push_back(variant_problem(257, dim));
  problems.back().heads = 8;  // groups of 4
  return problems;
}

double worst_share(const Variant& v, const OracleProblem& p, const OracleInputs& inputs,
                   const OracleResult& truth, const OracleResult& naive, bool ordered) {
  const TileGrid grid{v.kernel.tile_q, v.kernel.tile_k};
  const RunResult result =
      run_kernel(on_device(v.kernel, ordered), {make_launch(p, one_segment(p), grid)}, inputs,
                 {.gap = 8, .gap_step = 8});
  const Shares shares = shares_of(result.values, truth, naive);
  return result.gaps_untouched ? std::max({shares.dq, shares.dk, shares.dv}) : HUGE_VAL;
}

/// Errors are shares of the bound, as in kernels_gpu, of any order and of turns.
bool right(const Variant& v) {
  return print_shares(v, [&](const auto& say) {
    for (const OracleProblem& p : problems_for(v.dim)) {
      const OracleInputs inputs = random_inputs(p, 17);
      const OracleResult truth = device_oracle(p, inputs);
      const OracleResult naive = device_naive(p, inputs);
      for (const bool ordered : {false, true})
        say(worst_share(v, p, inputs, truth, naive, ordered));
    }
  });
}

int check_all(const Variants& variants) {
  int wrong = 0;
  for (const Variant& v : variants) {
    if (!v.right || v.uncleared) {
      std::printf("%-16s %3d  not checked: for timing alone\n", v.name.c_str(),
                  static_cast<int>(v.dim));
    } else {
      wrong += right(v) ? 0 : 1;
    }
  }
  return wrong == 0 ? 0 : 1;
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
  }
  static std::size_t bytes(std::int64_t n) { return static_cast<std::size_t>(n); }

  std::int64_t batch, elements;
  DeviceBytes q, k, v, dout, out, lse, delta, dq, dk, dv;
  TestStream on;
};

/// One variant at one shape, ready to be launched.
class Timed {
 public:
  Timed(const Variant& variant, const TimedShape& shape, const Tensors& t)
      : kernel_(variant.kernel),
        sequences_(shape, kernel_),
        geometry_(sequences_.geometry, kernel_),
        workspace_(static_cast<std::size_t>(
            std::max(kernel_.workspace_bytes(sequences_.geometry, true, 1),
                     kernel_.workspace_bytes(sequences_.geometry, false, 1)))) {
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
    context_.stream = t.on.stream;
  }

  /// lse is the forward's: with others P would be what no P is.
  void launch_forward() { kernel_.forward(forward_, context_); }
  void launch() { kernel_.backward(params_, context_); }
  void launch_timed() {
    times_.time(static_cast<cudaStream_t>(context_.stream), [this] { launch(); });
  }
  void note() { times_.note(); }
  double tflops(std::int64_t dim) const {
    return 10.0 * sequences_.pairs * static_cast<double>(dim) * 1e-9 / times_.median_ms();
  }
  /// What block 0 of one launch says.
  Said trace() {
    return said_by(context_, kPhaseCount, [this] { launch(); });
  }

 private:
  static constexpr std::size_t kPhaseCount = attn::sm90::kPhases;
  attn::Kernel kernel_;
  TimedSequences sequences_;
  DeviceGeometry geometry_;
  DeviceBytes workspace_;
  attn::ForwardParams forward_;
  attn::BackwardParams params_;
  attn::LaunchContext context_;
  LaunchTimes times_;
};

constexpr int kWarmUp = 2;
constexpr int kRounds = 15;

std::vector<double> rates(const Variants& variants, const TimedShape& shape) {
  const Tensors tensors(shape);
  std::vector<std::unique_ptr<Timed>> timed;
  for (const Variant& v : variants) timed.push_back(std::make_unique<Timed>(v, shape, tensors));
  timed.front()->launch_forward();
  time_interleaved(timed, kWarmUp, kRounds);
  std::vector<double> tflops;
  for (const auto& t : timed) tflops.push_back(t->tflops(shape.dim));
  return tflops;
}

int time_all(const Variants& variants) {
  print_tables(variants, {2048, 8192, 16384}, kRounds, rates);
  return 0;
}

Said trace(const Variant& v, const TimedShape& shape) {
  const Tensors tensors(shape);
  Timed timed(v, shape, tensors);
  timed.launch_forward();
  timed.launch();
  return timed.trace();
}

int trace_variants(const Variants& all) {
  return trace_all(all, {2048, 8192}, attn::sm90::kPhaseNames, trace);
}

}  // namespace
}  // namespace annulus::testing

int main(int argc, char** argv) {
  using namespace annulus::testing;
  return run_variants(argc, argv, hopper_backward_variants,
                      {{"check", check_all}, {"time", time_all}, {"trace", trace_variants}});
}
