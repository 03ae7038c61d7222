// Tunings of the Hopper forward side by side, bf16:
//   hopper_variants_gpu list              names, as "early 128"
//   hopper_variants_gpu check [NAME...]   numbers against the float64 oracle
//   hopper_variants_gpu time [NAME...]    TFLOP/s by variant, full and causal, 512 to 16k
//   hopper_variants_gpu trace [NAME...]   clocks by phase, of those that say so
// NAME: "early 128", "early" (of every head dim) or "128"; none: all. check: exit status 1 if one
// is wrong. 77 without a Hopper GPU. tests/gpu/hopper_variants.sh runs each under a deadline.
#include "attention/kernels/sm90/forward_phases.h"
#include "tests/gpu/device_oracle.h"
#include "tests/gpu/hopper_variants.h"
#include "tests/gpu/shares.h"
#include "tests/support/launch.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

namespace annulus::testing {
namespace {

/// Launches that make up one problem.
using Chain = std::vector<TestLaunch>;

std::vector<Chain> chains_for(const Variant& v) {
  const TileGrid grid{v.kernel.tile_q, v.kernel.tile_k};
  std::vector<Chain> chains;
  const auto whole = [&](const OracleProblem& p) {
    chains.push_back({make_launch(p, one_segment(p), grid)});
  };
  for (const std::int64_t seq : {1, 130, 613}) {
    OracleProblem p = variant_problem(seq, v.dim);
    whole(p);
    p.terms.clear();
    whole(p);
  }
  OracleProblem p = variant_problem(613, v.dim);
  p.terms = {Mask::Window{150, 0}};
  whole(p);
  p.terms = {Mask::Causal{}};
  p.softmax_scale = 1.0;  // maxima grow by much
  whole(p);
  p = variant_problem(413, v.dim);
  Chain resumed;
  std::int64_t begin = 0;
  for (const std::int64_t end : {5, 180, 333, 413}) {
    resumed.push_back(make_launch(p, {{begin, begin, 1, end - begin}}, grid));
    begin = end;
  }
  chains.push_back(resumed);
  return chains;
}

double worst_share(const Variant& v, const Chain& chain) {
  const OracleProblem& p = chain.front().problem;
  const OracleInputs inputs = random_inputs(p, 17);
  OracleResult truth = device_oracle(p, inputs);
  OracleResult naive = device_naive(p, inputs);
  for (OracleResult* r : {&truth, &naive}) {
    for (auto* gradient : {&r->dq, &r->dk, &r->dv}) gradient->clear();
  }
  const RunResult result = run_kernel(on_device(v.kernel, false), chain, inputs,
                                      {.gap = 8, .gap_step = 8, .backward = false});
  const Shares shares = shares_of(result.values, truth, naive);
  return result.gaps_untouched ? std::max(shares.out, shares.lse) : HUGE_VAL;
}

/// Errors are shares of the bound, as in kernels_gpu.
int check_all(const Variants& variants) {
  int wrong = 0;
  for (const Variant& v : variants) {
    if (v.traced) continue;
    const bool right = print_shares(v, [&](const auto& say) {
      for (const Chain& chain : chains_for(v)) say(worst_share(v, chain));
    });
    wrong += right ? 0 : 1;
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
        out(static_cast<std::size_t>(elements * 2)),
        lse(static_cast<std::size_t>(batch * s.seq * 16 * 4)) {}

  std::int64_t batch, elements;
  DeviceBytes q, k, v, out, lse;
  TestStream on;
};

/// One variant at one shape, ready to be launched.
class Timed {
 public:
  Timed(const Variant& variant, const TimedShape& shape, const Tensors& t)
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
    context_.stream = t.on.stream;
  }

  void launch() { kernel_.forward(params_, context_); }
  void launch_timed() {
    times_.time(static_cast<cudaStream_t>(context_.stream), [this] { launch(); });
  }
  void note() { times_.note(); }
  double tflops(std::int64_t dim) const {
    return 4.0 * sequences_.pairs * static_cast<double>(dim) * 1e-9 / times_.median_ms();
  }

  /// What block 0 of one launch says.
  Said trace() {
    return said_by(context_, kPhaseCount, [this] { launch(); });
  }

 private:
  static constexpr std::size_t kPhaseCount = attn::sm90::kForwardPhases;
  attn::Kernel kernel_;
  TimedSequences sequences_;
  DeviceGeometry geometry_;
  DeviceBytes workspace_;
  attn::ForwardParams params_;
  attn::LaunchContext context_;
  LaunchTimes times_;
};

constexpr int kWarmUp = 3;
constexpr int kRounds = 30;

std::vector<double> rates(const Variants& variants, const TimedShape& shape) {
  const Tensors tensors(shape);
  std::vector<std::unique_ptr<Timed>> timed;
  for (const Variant& v : variants) timed.push_back(std::make_unique<Timed>(v, shape, tensors));
  time_interleaved(timed, kWarmUp, kRounds);
  std::vector<double> tflops;
  for (const auto& t : timed) tflops.push_back(t->tflops(shape.dim));
  return tflops;
}

int time_all(const Variants& variants) {
  print_tables(variants, {512, 1024, 2048, 4096, 8192, 16384}, kRounds, rates);
  return 0;
}

Said trace(const Variant& v, const TimedShape& shape) {
  const Tensors tensors(shape);
  Timed timed(v, shape, tensors);
  timed.launch();
  return timed.trace();
}

int trace_variants(const Variants& all) {
  return trace_all(all, {512, 2048, 8192}, attn::sm90::kForwardPhaseNames, trace);
}

}  // namespace
}  // namespace annulus::testing

int main(int argc, char** argv) {
  using namespace annulus::testing;
  return run_variants(argc, argv, hopper_variants,
                      {{"check", check_all}, {"time", time_all}, {"trace", trace_variants}});
}
