// The kernels in f32 arithmetic for each instruction set that is compiled in and that this machine
// has.
#include "attention/kernels/dispatch.h"
#include "tests/kernels/kernel_checks.h"

#include <hwy/targets.h>

namespace annulus::testing {
namespace {

/// Lets the library see one instruction set only, while alive.
class OnlyTarget {
 public:
  explicit OnlyTarget(std::int64_t target) { hwy::SetSupportedTargetsForTest(target); }
  ~OnlyTarget() { hwy::SetSupportedTargetsForTest(0); }
  OnlyTarget(const OnlyTarget&) = delete;
  OnlyTarget& operator=(const OnlyTarget&) = delete;
};

TEST(Targets, EachMatchesTheOracle) {
  const std::int64_t supported = hwy::SupportedTargets();
  for (const std::int64_t target : {HWY_AVX3, HWY_AVX2, HWY_NEON, HWY_SCALAR}) {
    if ((supported & target) == 0 && target != HWY_SCALAR) continue;
    const OnlyTarget only(target);
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      SCOPED_TRACE(std::string(hwy::TargetName(target)) + " " + std::string(name_of(dtype)));
      const OracleProblem problem{.seq = 150,
                                  .seq_kv = 150,
                                  .heads = 2,
                                  .heads_kv = 1,
                                  .head_dim = 83,
                                  .head_dim_v = 19,
                                  .dtype = dtype,
                                  .terms = {Mask::Causal{}, Mask::Window{70, 0}},
                                  .softcap = 9.0,
                                  .softmax_scale = 0.2};
      const OracleInputs inputs = random_inputs(problem, 47);
      const OracleResult truth = oracle_attention(problem, inputs);
      const OracleResult naive = naive_attention(problem, inputs);
      for (const std::string_view name : {"flash2", "flash1", "naive"}) {
        SCOPED_TRACE(name);
        const RunResult result = run_kernel(attn::find_kernel(name, {}),
                                            {make_launch(problem, one_segment(problem))}, inputs);
        expect_close(result.values, truth, naive);
      }
    }
  }
}

}  // namespace
}  // namespace annulus::testing
