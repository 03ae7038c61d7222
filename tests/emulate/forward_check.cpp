#include "tests/emulate/forward_check.h"

#include "tests/gpu/shares.h"

#include <gtest/gtest.h>

#include <string>

namespace annulus::testing {

OracleProblem of_dims(OracleProblem p, std::int64_t dim_v) {
  p.head_dim_v = dim_v;
  return p;
}

void expect_right(const std::vector<TestLaunch>& chain, const Emulation& emulation) {
  const OracleProblem& p = chain.front().problem;
  SCOPED_TRACE("seq " + std::to_string(p.seq) + ":" + std::to_string(p.seq_kv) + " dim " +
               std::to_string(p.head_dim) + ":" + std::to_string(p.head_dim_v) + " seed " +
               std::to_string(emulation.seed));
  const OracleInputs inputs = random_inputs(p, 17 + emulation.seed);
  OracleResult truth = oracle_attention(p, inputs);
  OracleResult naive = naive_attention(p, inputs);
  const RunOptions options{
      .gap = 8, .gap_step = 8, .heads_first = emulation.seed % 2 == 0, .backward = false};
  const RunResult result = run_kernel(emulated_hopper(emulation), chain, inputs, options);
  for (OracleResult* r : {&truth, &naive}) {
    for (auto* gradient : {&r->dq, &r->dk, &r->dv}) gradient->clear();
  }
  const Shares shares = shares_of(result.values, truth, naive);
  EXPECT_LE(shares.out, 1.0);
  EXPECT_LE(shares.lse, 1.0);
  EXPECT_TRUE(result.gaps_untouched);
  EXPECT_EQ(unseen_not_zero(chain.front(), result.values), "");
  EXPECT_EQ(result.forward_flops, 2 * pairs_of(chain) * (p.head_dim + p.head_dim_v));
}

void expect_right(const OracleProblem& p, const Emulation& emulation, const TileGrid& grid) {
  expect_right({make_launch(p, one_segment(p), grid)}, emulation);
}

}  // namespace annulus::testing
