// The standing case: 24:8 heads, seq 613 (a prime), head_dim 128. Ranks are threads, so that the
// oracle runs once.

#include "tests/engine/check.h"

#include "tests/support/run_ranks.h"

#include <gtest/gtest.h>

namespace annulus::testing {
namespace {

Problem standing(DType dtype) {
  return {.batch = 1, .seq = 613, .heads = 24, .heads_kv = 8, .head_dim = 128, .dtype = dtype};
}

TEST(Standing, MatchesSingleRankInBf16) {
  check(standing(DType::bf16),
        {{.algorithm = Algorithm::ring},
         {.algorithm = Algorithm::gather, .layout = Layout::balanced()},
         {.algorithm = Algorithm::ulysses, .layout = Layout::striped()}},
        613);
}

TEST(Standing, RepeatsBitwise) {
  const Problem p = standing(DType::f32);
  const OracleInputs inputs = random_inputs(oracle_problem(p), 614);
  for (const Algorithm a : {Algorithm::ring, Algorithm::gather, Algorithm::ulysses}) {
    run_ranks(4, [&](Mesh& mesh) {
      const RankResult first = run_rank(mesh, p, inputs, {.algorithm = a});
      const RankResult again = run_rank(mesh, p, inputs, {.algorithm = a, .threads = 2});
      EXPECT_EQ(first.out, again.out);
      EXPECT_EQ(first.lse, again.lse);
      EXPECT_EQ(first.dq, again.dq);
      EXPECT_EQ(first.dk, again.dk);
      EXPECT_EQ(first.dv, again.dv);
    });
  }
}

}  // namespace
}  // namespace annulus::testing
