// The public float64 reference against the oracle, and the table of kernels.
#include "attention/kernels/dispatch.h"
#include "tests/kernels/kernel_checks.h"

#include <annulus/error.h>
#include <annulus/reference.h>

#include <gmock/gmock.h>

#include <numeric>

namespace annulus::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// One head whose rows see two intervals, some none.
struct Case {
  Case() {
    Mask::Rows rows;
    for (std::int64_t i = 0; i < problem.seq; ++i) {
      rows.intervals.push_back(
          i % 5 == 0 ? RowIntervals{}
                     : RowIntervals{KeyInterval{i / 3, i / 2}, KeyInterval{i / 2 + 2, i + 20}});
    }
    for (const RowIntervals& row : rows.intervals) mask.add_row(row);
    problem.terms = {rows};
    inputs = random_inputs(problem, 3);
    truth = oracle_attention(problem, inputs);
    for (std::size_t i = 0; i < inputs.dout.size(); ++i) {
      delta[i / static_cast<std::size_t>(problem.head_dim_v)] += inputs.dout[i] * truth.out[i];
    }
  }

  ReferenceHead head() const {
    return {.seq = problem.seq,
            .seq_kv = problem.seq_kv,
            .head_dim = problem.head_dim,
            .head_dim_v = problem.head_dim_v,
            .q = inputs.q.data(),
            .k = inputs.k.data(),
            .v = inputs.v.data(),
            .dout = inputs.dout.data(),
            .mask = &mask,
            .softmax_scale = problem.softmax_scale,
            .softcap = problem.softcap};
  }

  OracleProblem problem{.seq = 83,
                        .seq_kv = 150,
                        .head_dim = 19,
                        .head_dim_v = 33,
                        .dtype = DType::f64,
                        .terms = {},
                        .softcap = 5.0,
                        .softmax_scale = 0.2};
  KeyLists mask;
  OracleInputs inputs;
  OracleResult truth;
  std::vector<double> delta = std::vector<double>(83, 0.0);
};

/// Rows `indices` of compact rows of `dim`.
std::vector<double> pick(const std::vector<double>& values, std::int64_t dim,
                         const std::vector<std::int64_t>& indices) {
  std::vector<double> picked;
  for (const std::int64_t i : indices) {
    picked.insert(picked.end(), values.begin() + i * dim, values.begin() + (i + 1) * dim);
  }
  return picked;
}

std::vector<double> poisoned(std::size_t n) { return std::vector<double>(n, std::nan("")); }

const std::vector<std::int64_t> kRows{0, 82, 7, 8, 9, 10, 11, 12, 13, 41, 40};

TEST(Reference, ForwardOfChosenRowsMatchesTheOracle) {
  const Case c;
  auto out = poisoned(kRows.size() * 33);
  auto lse = poisoned(kRows.size());
  reference_forward(c.head(), kRows, out.data(), lse.data());
  EXPECT_LT(max_error(out, pick(c.truth.out, 33, kRows)), 1e-13);
  EXPECT_LT(max_error(lse, pick(c.truth.lse, 1, kRows)), 1e-13);
}

TEST(Reference, QueryGradientOfChosenRowsMatchesTheOracle) {
  const Case c;
  auto dq = poisoned(kRows.size() * 19);
  reference_backward_rows(c.head(), kRows, pick(c.truth.lse, 1, kRows).data(),
                          pick(c.delta, 1, kRows).data(), dq.data());
  EXPECT_LT(max_error(dq, pick(c.truth.dq, 19, kRows)), 1e-12);
}

TEST(Reference, KeyGradientsOfChosenKeysAreAdded) {
  const Case c;
  const std::vector<std::int64_t> keys{149, 3, 4, 5, 70, 0, 101};
  std::vector<double> dk(keys.size() * 19, 1.0);
  std::vector<double> dv(keys.size() * 33, 2.0);
  reference_backward_keys(c.head(), keys, c.truth.lse.data(), c.delta.data(), dk.data(), dv.data());
  for (double& value : dk) value -= 1.0;
  for (double& value : dv) value -= 2.0;
  EXPECT_LT(max_error(dk, pick(c.truth.dk, 19, keys)), 1e-12);
  EXPECT_LT(max_error(dv, pick(c.truth.dv, 33, keys)), 1e-12);
}

TEST(Dispatch, PrefersFlash2AndFallsBackToTheReference) {
  EXPECT_EQ(attn::find_kernel("auto", {.dtype = DType::bf16, .head_dim = 128}).name, "flash2");
  EXPECT_EQ(attn::find_kernel("auto", {.dtype = DType::f64}).name, "reference");
  EXPECT_EQ(attn::find_kernel("auto", {.head_dim = 513}).name, "reference");
  EXPECT_EQ(attn::find_kernel("reference", {}).name, "reference");
}

std::string message_of(std::string_view name, const attn::KernelQuery& query) {
  try {
    attn::find_kernel(name, query);
  } catch (const Unsupported& error) {
    return error.what();
  }
  return {};
}

TEST(Dispatch, NamesTheQueryAndWhatIsBuiltWhenNothingServes) {
  EXPECT_THAT(message_of("flash9", {.head_dim = 96, .backward = true}),
              AllOf(HasSubstr("flash9"), HasSubstr("f32 head_dim 96"), HasSubstr("backward"),
                    HasSubstr("flash2 (cpu"), HasSubstr("reference (cpu")));
  EXPECT_THAT(message_of("flash2", {.head_dim = 600}),
              AllOf(HasSubstr("600"), HasSubstr("head dims 1 to 512")));
}

}  // namespace
}  // namespace annulus::testing
