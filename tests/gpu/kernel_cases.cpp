#include "tests/gpu/kernel_cases.h"

#include "attention/kernels/cuda/table.h"
#include "runtime/base/dtype.h"
#include "tests/gpu/device_kernel.h"
#include "tests/gpu/device_oracle.h"
#include "tests/gpu/shares.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>

namespace annulus::testing {

namespace {

using attn::Kernel;

/// The kernels of a case that this device has and that were asked for.
std::vector<const Kernel*> kernels_for(const Case& c, const std::vector<std::string_view>& names,
                                       const std::string& only) {
  const OracleProblem& p = c.chain.front().problem;
  std::vector<const Kernel*> found;
  for (const Kernel* kernel : attn::cuda::kernels()) {
    const std::string line = std::string(kernel->name) + " " + c.name;
    if (std::find(names.begin(), names.end(), kernel->name) != names.end() &&
        line.find(only) != std::string::npos &&
        kernel->refuses({p.dtype, p.head_dim, p.head_dim_v, false, "cuda"}).empty()) {
      found.push_back(kernel);
    }
  }
  return found;
}

/// Of its name (FNV-1a), so that a case has the same inputs whatever runs before it.
std::uint64_t seed_of(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const char letter : name) {
    hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3U;
  }
  return hash;
}

void check(const Case& c, const std::vector<std::string_view>& names, const Filter& filter,
           Tally& tally) {
  const OracleProblem& p = c.chain.front().problem;
  const std::vector<const Kernel*> kernels = kernels_for(c, names, filter.only);
  if (kernels.empty()) return;
  const OracleInputs inputs = random_inputs(p, seed_of(c.name));
  OracleResult truth = device_oracle(p, inputs);
  OracleResult naive = device_naive(p, inputs);
  RunOptions options = c.options;
  const bool forward = filter.forward || c.forward;
  options.backward = !forward;
  // Gradients that leave in 16 bits cannot be nearer than these.
  if (options.rounded_keys) {
    for (auto* gradient : {&naive.dk, &naive.dv}) {
      for (double& x : *gradient) x = rounded_to(p.dtype, x);
    }
  }
  for (OracleResult* r : {&truth, &naive}) {
    for (auto* gradient : {&r->dq, &r->dk, &r->dv}) {
      if (forward) gradient->clear();
    }
  }
  const std::int64_t pairs = pairs_of(c.chain);
  for (const Kernel* kernel : kernels) {
    ++tally.cases;
    std::string problems;
    Shares shares{};
    try {
      const Kernel& adapter = on_device(*kernel, true);
      const RunResult result = run_kernel(adapter, c.chain, inputs, options);
      for (int i = 0; i < filter.repeats && problems.empty(); ++i) {
        const RunResult again = run_kernel(adapter, c.chain, inputs, options);
        if (!same_bits(result.values, again.values)) {
          problems += " BITS" + differences(result.values, again.values);
        }
      }
      const Kernel& unordered = on_device(*kernel, false);
      const RunResult free = run_kernel(unordered, c.chain, inputs, options);
      for (int i = 0; forward && i < filter.repeats && problems.empty(); ++i) {
        const RunResult again = run_kernel(unordered, c.chain, inputs, options);
        if (!same_bits(free.values, again.values)) {
          problems += " FREE BITS" + differences(free.values, again.values);
        }
      }
      shares = shares_of(result.values, truth, naive);
      if (!(shares.worst() <= 1.0)) problems += " ERROR";
      if (!(shares_of(free.values, truth, naive).worst() <= 1.0)) problems += " UNORDERED";
      for (const OracleResult* r : {&result.values, &free.values}) {
        const std::string unseen = unseen_not_zero(c.chain.front(), *r);
        if (!unseen.empty()) problems += " UNSEEN" + unseen;
      }
      if (!result.gaps_untouched || !free.gaps_untouched) problems += " GAPS";
      if (result.forward_flops != 2 * pairs * (p.head_dim + p.head_dim_v) ||
          free.forward_flops != result.forward_flops ||
          (options.backward &&
           result.backward_flops != 2 * pairs * (3 * p.head_dim + 2 * p.head_dim_v))) {
        problems += " FLOPS " + std::to_string(result.forward_flops) + " " +
                    std::to_string(result.backward_flops) + " of " + std::to_string(pairs) +
                    " pairs";
      }
    } catch (const std::exception& error) {
      problems += std::string(" THROWS ") + error.what();
    }
    std::printf("%-4s %-9s %-58s  out %.2f lse %.2f dq %.2f dk %.2f dv %.2f%s\n",
                problems.empty() ? "ok" : "FAIL", kernel->name.data(), c.name.c_str(), shares.out,
                shares.lse, shares.dq, shares.dk, shares.dv, problems.c_str());
    std::fflush(stdout);
    tally.failed += problems.empty() ? 0 : 1;
  }
}

}  // namespace

OracleProblem problem_of(DType dtype, std::int64_t seq, std::int64_t dim, std::int64_t heads,
                         std::int64_t heads_kv) {
  return {.seq = seq,
          .seq_kv = seq,
          .heads = heads,
          .heads_kv = heads_kv,
          .head_dim = dim,
          .head_dim_v = dim,
          .dtype = dtype,
          .terms = {Mask::Causal{}},
          .softmax_scale = 1.0 / std::sqrt(static_cast<double>(dim))};
}

std::string name_of(const char* what, const OracleProblem& p) {
  return std::string(what) + " " + std::string(name_of(p.dtype)) + " dim " +
         std::to_string(p.head_dim) + ":" + std::to_string(p.head_dim_v) + " seq " +
         std::to_string(p.seq) + ":" + std::to_string(p.seq_kv) + " heads " +
         std::to_string(p.heads) + ":" + std::to_string(p.heads_kv);
}

void Cases::run(const Case& c, const std::vector<std::string_view>& names) const {
  check(c, names, filter_, tally_);
}

void Cases::whole(const char* what, const OracleProblem& p,
                  const std::vector<std::string_view>& names, const TileGrid& grid) const {
  run({name_of(what, p), {make_launch(p, one_segment(p), grid)}}, names);
}

void Cases::chained(const char* what, const OracleProblem& p, const std::vector<std::int64_t>& cuts,
                    const std::vector<std::string_view>& names) const {
  Case c{name_of(what, p), {}};
  for (const attn::KeySegment& segment : segments_cut_at(p.seq_kv, cuts)) {
    c.chain.push_back(make_launch(p, {segment}, kGrid));
  }
  run(c, names);
}

}  // namespace annulus::testing
