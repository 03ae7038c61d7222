// Distributed against single rank against the float64 oracle: every algorithm, layout and mask.

#include "tests/engine/distributed.h"
#include "tests/support/each_world.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <vector>

namespace annulus::testing {
namespace {

/// A state that passes through `world` launches is rounded to f32 as often, LSE and O, and so are
/// sums of gradients: on shapes this small that is as much as all other error of one rank in f32.
/// Next to f16 and bf16 it is nothing.
double state_rounding(int world) { return (4 + world) * 0x1p-24; }

void expect_close(const char* name, double error, double single, double slack,
                  const std::string& what) {
  EXPECT_LE(error, 1.1 * single + slack) << name << " of " << what << ", single rank " << single;
}

void check(const Problem& problem, const std::vector<RunOptions>& runs, std::uint64_t seed) {
  const OracleInputs inputs = random_inputs(oracle_problem(problem), seed);
  OracleResult truth = oracle_attention(problem, inputs);
  if (inputs.dout.empty()) {  // no queries: the oracle takes it for a forward alone
    truth.dk.assign(inputs.k.size(), 0.0);
    truth.dv.assign(inputs.v.size(), 0.0);
  }
  std::vector<Errors> single;
  for (RunOptions options : runs) {
    Mesh alone = Mesh::single();
    options.algorithm = Algorithm::ring;
    options.layout = Layout::contiguous();
    const RankResult result = run_rank(alone, problem, inputs, options);
    single.push_back(
        errors_of(alone, problem, solve_layout(options.layout, problem, 1), result, truth));
  }
  each_world([&](Mesh& mesh) {
    for (std::size_t i = 0; i < runs.size(); ++i) {
      const RunOptions& options = runs[i];
      const RankResult result = run_rank(mesh, problem, inputs, options);
      const Sharding sharding = solve_layout(options.layout, problem, mesh.world());
      const Errors e = errors_of(mesh, problem, sharding, result, truth);
      const std::string what =
          describe(problem, options, mesh.world()) + " seed " + std::to_string(seed);
      const double slack = state_rounding(mesh.world());
      expect_close("out", e.out, single[i].out, slack, what);
      expect_close("lse", e.lse, single[i].lse, slack, what);
      expect_close("dq", e.dq, single[i].dq, slack, what);
      expect_close("dk", e.dk, single[i].dk, slack, what);
      expect_close("dv", e.dv, single[i].dv, slack, what);
    }
  });
}

std::vector<RunOptions> every_algorithm() {
  std::vector<RunOptions> runs;
  for (const Algorithm a : {Algorithm::ring, Algorithm::gather, Algorithm::ulysses}) {
    for (const Layout& layout :
         {Layout::contiguous(), Layout::zigzag(), Layout::striped(), Layout::balanced()}) {
      runs.push_back({.algorithm = a, .layout = layout});
    }
  }
  return runs;
}

TEST(Distributed, MatchesSingleRankForEveryAlgorithmAndLayout) {
  Problem p{.batch = 2, .seq = 61, .heads = 5, .head_dim = 16};
  check(p, every_algorithm(), 11);
}

TEST(Distributed, MatchesSingleRankForGroupedHeadsInLowPrecision) {
  Problem p{.batch = 1,
            .seq = 83,
            .heads = 6,
            .heads_kv = 2,
            .head_dim = 24,
            .head_dim_v = 8,
            .dtype = DType::bf16};
  check(p, every_algorithm(), 12);
  p.dtype = DType::f16;
  check(p, every_algorithm(), 13);
}

TEST(Distributed, MatchesSingleRankForEveryMask) {
  const std::vector<Mask> masks = {Mask::full(),
                                   Mask::causal(CausalAlign::top_left),
                                   Mask::window(7, 2),
                                   Mask::documents({0, 1, 20, 0, 33, 7}),
                                   Mask::documents({30, 31}, false),
                                   Mask::prefix(17),
                                   Mask::documents({31, 30}) & Mask::window(5),
                                   Mask::prefix(9) & Mask::window(12, 3)};
  std::uint64_t seed = 20;
  for (const Mask& mask : masks) {
    Problem p{.batch = 1, .seq = 61, .heads = 4, .heads_kv = 2, .head_dim = 8, .mask = mask};
    check(p, every_algorithm(), seed++);
  }
}

TEST(Distributed, MatchesSingleRankWhenKeysAreMoreOrFewerThanQueries) {
  std::uint64_t seed = 40;
  for (const auto& [seq, seq_kv] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {13, 64}, {64, 13}, {1, 9}, {9, 1}, {7, 0}, {3, 2}}) {
    for (const CausalAlign align : {CausalAlign::bottom_right, CausalAlign::top_left}) {
      Problem p{.batch = 1,
                .seq = seq,
                .seq_kv = seq_kv,
                .heads = 2,
                .head_dim = 8,
                .mask = Mask::causal(align)};
      check(p, every_algorithm(), seed++);
    }
  }
}

TEST(Distributed, AcceptsEmptySequences) {
  Problem p{.batch = 1, .seq = 0, .heads = 2, .head_dim = 8};
  check(p, every_algorithm(), 60);
  p.seq_kv = 5;
  check(p, every_algorithm(), 61);
}

}  // namespace
}  // namespace annulus::testing
