#include "tests/emulate/backward.h"
#include "tests/gpu/shares.h"
#include "tests/support/launch.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace annulus::testing {
namespace {

constexpr TileGrid kGrid{128, 128};

OracleProblem problem_of(std::int64_t seq, std::int64_t dim = 128, DType dtype = DType::bf16) {
  return {.seq = seq,
          .seq_kv = seq,
          .heads = 2,
          .heads_kv = 1,
          .head_dim = dim,
          .head_dim_v = dim,
          .dtype = dtype,
          .terms = {},
          .softmax_scale = 1.0 / std::sqrt(static_cast<double>(dim))};
}

TEST(EmulatedHopperBackward, First) {
  OracleProblem p = problem_of(128);
  p.heads = 1;
  const OracleInputs inputs = random_inputs(p, 17);
  OracleResult truth = oracle_attention(p, inputs);
  OracleResult naive = naive_attention(p, inputs);
  const RunResult result = run_kernel(emulated_backward({}), {make_launch(p, one_segment(p), kGrid)},
                                      inputs, {.gap = 8, .gap_step = 8});
  const Shares shares = shares_of(result.values, truth, naive);
  EXPECT_LE(shares.dq, 1.0);
  EXPECT_LE(shares.dk, 1.0);
  EXPECT_LE(shares.dv, 1.0);
}

}  // namespace
}  // namespace annulus::testing
