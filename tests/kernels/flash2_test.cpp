// The tiled kernels against the oracle: sizes, masks, heads.
#include "attention/kernels/dispatch.h"
#include "tests/kernels/kernel_checks.h"

#include <string>

namespace annulus::testing {
namespace {

using attn::Kernel;
using attn::KeySegment;

constexpr DType kTypes[] = {DType::f32, DType::bf16, DType::f16};

const Kernel& flash2() { return attn::find_kernel("flash2", {}); }

/// Every kernel that is built, in one launch, against the oracle.
void check(const OracleProblem& problem, std::uint64_t seed, const Kernel& kernel = flash2()) {
  SCOPED_TRACE(std::string(kernel.name) + " " + std::string(name_of(problem.dtype)) + " seq " +
               std::to_string(problem.seq) + ":" + std::to_string(problem.seq_kv) + " dim " +
               std::to_string(problem.head_dim) + ":" + std::to_string(problem.head_dim_v) +
               " seed " + std::to_string(seed));
  const OracleInputs inputs = random_inputs(problem, seed);
  const RunResult result = run_kernel(kernel, {make_launch(problem, one_segment(problem))}, inputs);
  expect_close(result.values, oracle_attention(problem, inputs), naive_attention(problem, inputs));
  EXPECT_TRUE(result.gaps_untouched);
}

TEST(Kernels, MatchTheOracleForOddSizes) {
  for (const DType dtype : kTypes) {
    for (const std::int64_t seq : {1, 7, 130}) {
      for (const std::int64_t dim : {1, 7, 16, 80, 128}) {
        const OracleProblem problem{.batch = 2,
                                    .seq = seq,
                                    .seq_kv = seq,
                                    .heads = 4,
                                    .heads_kv = 2,
                                    .head_dim = dim,
                                    .head_dim_v = dim,
                                    .dtype = dtype,
                                    .terms = {Mask::Causal{}},
                                    .softmax_scale = 1.0 / std::sqrt(static_cast<double>(dim))};
        for (const Kernel* kernel : attn::kernels()) check(problem, 7, *kernel);
      }
    }
  }
}

}  // namespace
}  // namespace annulus::testing
