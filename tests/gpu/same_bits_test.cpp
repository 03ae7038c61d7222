// `gather` with `deterministic`: forward gives the same bits on any number of GPUs.

#include "tests/engine/distributed.h"
#include "tests/support/oracle.h"
#include "tests/support/run_ranks.h"

#include <annulus/device_memory.h>

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace annulus::testing {
namespace {

/// Output and lse of all tokens, in order of position.
struct Whole {
  std::vector<double> out, lse;
};

void collect(const RankResult& shard, const std::vector<std::int64_t>& positions, const Problem& p,
             Whole& whole) {
  const auto row = static_cast<std::size_t>(p.heads * *p.head_dim_v);
  for (std::size_t i = 0; i < positions.size(); ++i) {
    const auto at = static_cast<std::size_t>(positions[i]);
    for (std::size_t j = 0; j < row; ++j) whole.out[at * row + j] = shard.out[i * row + j];
    for (std::size_t h = 0; h < static_cast<std::size_t>(p.heads); ++h) {
      whole.lse[h * static_cast<std::size_t>(p.seq) + at] = shard.lse[h * positions.size() + i];
    }
  }
}

Problem problem_of(std::int64_t seq, std::int64_t seq_kv, const Mask& mask) {
  return resolved({.batch = 1,
                   .seq = seq,
                   .seq_kv = seq_kv,
                   .heads = 4,
                   .heads_kv = 2,
                   .head_dim = 128,
                   .dtype = DType::bf16,
                   .mask = mask});
}

/// The latter few rows and many keys, which `hopper` splits over keys.
TEST(SameBits, OnAnyNumberOfGpus) {
  if (device_count() < 2) GTEST_SKIP() << "fewer than two GPUs";
  for (const Problem& p :
       {problem_of(2063, 2063, Mask::causal()), problem_of(2063, 2063, Mask::full()),
        problem_of(2063, 2063, Mask::window(300)), problem_of(5, 9001, Mask::causal()),
        problem_of(150, 5003, Mask::causal()), problem_of(40, 4001, Mask::window(700))}) {
    const OracleInputs inputs = random_inputs(oracle_problem(p), 13);
    std::vector<Whole> results;
    for (int world = 1; world <= device_count(); ++world) {
      Whole& whole = results.emplace_back();
      whole.out.assign(static_cast<std::size_t>(p.seq * p.heads * *p.head_dim_v), std::nan(""));
      whole.lse.assign(static_cast<std::size_t>(p.seq * p.heads), std::nan(""));
      run_ranks({.ring = world}, [&](Mesh& mesh) {
        const RankResult shard = run_rank(
            mesh, p, inputs, {.algorithm = Algorithm::gather, .pad = 8, .deterministic = true});
        const Sharding layout = solve_layout(Layout::zigzag(), p, world);
        collect(shard, layout.positions(mesh.rank()), p, whole);
      });
      const std::string at = std::to_string(world) + " GPUs, " + p.mask.name() + ", " +
                             std::to_string(p.seq) + ":" + std::to_string(*p.seq_kv);
      EXPECT_TRUE(whole.out == results.front().out) << at << ", out";
      EXPECT_TRUE(whole.lse == results.front().lse) << at << ", lse";
    }
  }
}

}  // namespace
}  // namespace annulus::testing
