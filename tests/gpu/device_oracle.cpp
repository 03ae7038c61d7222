#include "tests/gpu/device_oracle.h"

#include "tests/gpu/device_kernel.h"
#include "tests/gpu/device_oracle_steps.h"
#include "tests/support/oracle_arrays.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <deque>
#include <span>
#include <stdexcept>
#include <string>

namespace annulus::testing {
namespace {

bool g_host = false;  // use_host_oracle says so

/// Where the steps run: arrays live until their problem is done.
class OnDevice {
 public:
  template <typename T>
  const T* bring(const std::vector<T>& values) {
    arrays_.push_back(upload(std::span<const T>(values)));
    return reinterpret_cast<const T*>(arrays_.back().data());
  }
  template <typename Real>
  Real* take(std::int64_t count) {
    arrays_.emplace_back(static_cast<std::size_t>(count) * sizeof(Real));
    return reinterpret_cast<Real*>(arrays_.back().data());
  }
  template <typename Real>
  void run(const OracleSteps<Real>& steps, OracleStep step) {
    check_cuda(run_oracle_step(steps, step, steps.count(step)), "a step of the oracle");
  }
  template <typename Real>
  std::vector<Real> fetch(const Real* from, std::int64_t count) {
    std::vector<Real> values(static_cast<std::size_t>(count));
    check_cuda(
        cudaMemcpy(values.data(), from, values.size() * sizeof(Real), cudaMemcpyDeviceToHost),
        "the oracle's result");
    return values;
  }

 private:
  std::deque<DeviceBytes> arrays_;
};

OracleResult truth_on_device(const OracleProblem& problem, const OracleInputs& inputs) {
  OnDevice place;
  return run_oracle_steps<double>(problem, inputs, OracleRounding::none, place);
}

OracleResult naive_on_device(const OracleProblem& problem, const OracleInputs& inputs) {
  OnDevice place;
  return run_oracle_steps<float>(problem, inputs, naive_rounding(problem.dtype), place);
}

/// Infinities must agree, a NaN is infinitely far.
double max_error(const std::vector<double>& a, const std::vector<double>& b) {
  double worst = a.size() == b.size() ? 0.0 : HUGE_VAL;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double error = a[i] == b[i] ? 0.0 : std::abs(a[i] - b[i]);
    worst = std::isnan(error) ? HUGE_VAL : std::max(worst, error);
  }
  return worst;
}

/// Odd sizes, groups of heads, values of another width, a softcap; rows that see nothing and rows
/// of two intervals; fewer keys than queries.
std::vector<OracleProblem> small_problems() {
  OracleProblem grouped{.batch = 2,
                        .seq = 37,
                        .seq_kv = 53,
                        .heads = 6,
                        .heads_kv = 2,
                        .head_dim = 24,
                        .head_dim_v = 40,
                        .dtype = DType::bf16,
                        .terms = {Mask::Causal{}},
                        .softcap = 5.0,
                        .softmax_scale = 0.3};
  OracleProblem fewer_keys = grouped;
  fewer_keys.seq_kv = 11;
  fewer_keys.dtype = DType::f16;
  fewer_keys.softcap = 0.0;
  fewer_keys.terms = {Mask::Window{5, 2}};
  OracleProblem rows = grouped;
  rows.dtype = DType::f32;
  Mask::Rows intervals;
  for (std::int64_t i = 0; i < rows.seq; ++i) {
    intervals.intervals.push_back(
        i % 4 == 0 ? RowIntervals{}
                   : RowIntervals{KeyInterval{i / 3, i / 2}, KeyInterval{i, i + 7}});
  }
  rows.terms = {intervals};
  return {grouped, fewer_keys, rows};
}

/// The truth to the last digits of float64; low precision to about the same error, since its sums
/// are rounded in another way.
void require_the_hosts(const OracleProblem& p) {
  const OracleInputs inputs = random_inputs(p, 5);
  const OracleResult truth = oracle_attention(p, inputs);
  const OracleResult naive = naive_attention(p, inputs);
  const OracleResult our_truth = truth_on_device(p, inputs);
  const OracleResult our_naive = naive_on_device(p, inputs);
  const auto compare = [&](const char* what, std::vector<double> OracleResult::*member) {
    const double error = max_error(our_truth.*member, truth.*member);
    const double low = max_error(naive.*member, truth.*member);
    const double our_low = max_error(our_naive.*member, truth.*member);
    if (error <= 1e-11 && our_low <= 2.0 * low + 1e-5 && low <= 2.0 * our_low + 1e-5) return;
    throw std::runtime_error(std::string("the device oracle differs from the host's in ") + what +
                             " by " + std::to_string(error) + "; low precision errs by " +
                             std::to_string(our_low) + ", the host's by " + std::to_string(low));
  };
  compare("out", &OracleResult::out);
  compare("lse", &OracleResult::lse);
  compare("dq", &OracleResult::dq);
  compare("dk", &OracleResult::dk);
  compare("dv", &OracleResult::dv);
}

void check_once() {
  static const bool checked = [] {
    for (const OracleProblem& p : small_problems()) require_the_hosts(p);
    std::printf("the device oracle gives the host's results\n");
    return true;
  }();
  (void)checked;
}

}  // namespace

OracleResult device_oracle(const OracleProblem& problem, const OracleInputs& inputs) {
  if (g_host) return oracle_attention(problem, inputs);
  check_once();
  return truth_on_device(problem, inputs);
}

OracleResult device_naive(const OracleProblem& problem, const OracleInputs& inputs) {
  if (g_host) return naive_attention(problem, inputs);
  check_once();
  return naive_on_device(problem, inputs);
}

void use_host_oracle() { g_host = true; }

}  // namespace annulus::testing
