#include "tests/emulate/backward_check.h"

#include "attention/kernels/sm90/variant.h"
#include "runtime/base/dtype.h"
#include "tests/gpu/shares.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

namespace annulus::testing {

namespace {

void poison(std::vector<double>& values, const OracleProblem& p, const KeyInterval& rows) {
  const std::int64_t row = static_cast<std::int64_t>(values.size()) / (p.batch * p.seq);
  for (std::int64_t b = 0; b < p.batch; ++b) {
    const auto first = values.begin() + b * p.seq * row;
    std::fill(first + rows.begin * row, first + rows.end * row, std::nan(""));
  }
}

}  // namespace

TileGrid backward_grid(const OracleProblem& p) {
  return {128, attn::sm90::backward_keys(p.head_dim)};
}

RunResult run_backward(const std::vector<TestLaunch>& chain, const OracleInputs& inputs,
                       const BackwardOptions& options) {
  return run_kernel(emulated_backward(options.emulation, options.backward), chain, inputs,
                    {.gap = 8,
                     .gap_step = 8,
                     .heads_first = options.emulation.seed % 2 == 0,
                     .add_key_gradients = options.add_key_gradients,
                     .rounded_keys = options.rounded_keys});
}

RunResult expect_right(const std::vector<TestLaunch>& chain, const BackwardOptions& options) {
  const OracleProblem& p = chain.front().problem;
  SCOPED_TRACE("seq " + std::to_string(p.seq) + ":" + std::to_string(p.seq_kv) + " dim " +
               std::to_string(p.head_dim) + ":" + std::to_string(p.head_dim_v) + " seed " +
               std::to_string(options.emulation.seed));
  OracleInputs inputs = random_inputs(p, 17 + options.emulation.seed);
  const OracleResult truth = oracle_attention(p, inputs);
  const OracleResult naive = naive_attention(p, inputs);
  poison(inputs.q, p, options.nan_rows);
  poison(inputs.dout, p, options.nan_rows);
  RunResult result = run_backward(chain, inputs, options);
  const Shares shares = shares_of(result.values, truth, naive);
  EXPECT_LE(shares.dq, 1.0);
  EXPECT_LE(shares.dk, 1.0);
  EXPECT_LE(shares.dv, 1.0);
  EXPECT_TRUE(result.gaps_untouched);
  EXPECT_EQ(unseen_not_zero(chain.front(), result.values), "");
  EXPECT_EQ(result.backward_flops, 2 * pairs_of(chain) * (3 * p.head_dim + 2 * p.head_dim_v));
  return result;
}

RunResult expect_right(const OracleProblem& p, const BackwardOptions& options,
                       const TileGrid& grid) {
  return expect_right({make_launch(p, one_segment(p), grid)}, options);
}

RunResult expect_right(const OracleProblem& p, const BackwardOptions& options) {
  return expect_right(p, options, backward_grid(p));
}

void expect_rounded(const std::vector<TestLaunch>& chain, const BackwardOptions& options) {
  const OracleProblem& p = chain.front().problem;
  SCOPED_TRACE("seq " + std::to_string(p.seq) + ":" + std::to_string(p.seq_kv) + " dim " +
               std::to_string(p.head_dim) + ":" + std::to_string(p.head_dim_v));
  const OracleInputs inputs = random_inputs(p, 29 + options.emulation.seed);
  BackwardOptions rounding = options;
  rounding.rounded_keys = true;
  const RunResult plain = run_backward(chain, inputs, options);
  const RunResult rounded = run_backward(chain, inputs, rounding);
  const auto expect = [&](const std::vector<double>& actual, std::vector<double> wanted) {
    for (double& x : wanted) x = rounded_to(p.dtype, x);
    EXPECT_EQ(actual, wanted);
  };
  expect(rounded.values.dk, plain.values.dk);
  expect(rounded.values.dv, plain.values.dv);
  EXPECT_NE(rounded.values.dk, plain.values.dk);
  EXPECT_TRUE(rounded.gaps_untouched);
  EXPECT_EQ(rounded.backward_flops, plain.backward_flops);
}

void expect_rounded(const OracleProblem& p, const BackwardOptions& options) {
  expect_rounded({make_launch(p, one_segment(p), backward_grid(p))}, options);
}

}  // namespace annulus::testing
