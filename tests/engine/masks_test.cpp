// Masks of any shape, distributed, against the float64 oracle: segments that come back, arbitrary
// pairs, and both joined with others. Random shapes; the seed is in every message.

#include "tests/engine/distributed.h"
#include "tests/support/each_world.h"
#include "tests/support/random.h"
#include "tests/engine/check.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace annulus::testing {
namespace {

/// f32 sums of a few hundred terms; a wrong pair is off by 1e-2 and more.
constexpr double kBound = 2e-5;

Mask random_dense(std::mt19937& generator, std::int64_t seq, std::int64_t seq_kv) {
  const std::int64_t percent = random_between(generator, 1, 99);
  std::vector<std::uint8_t> allowed(static_cast<std::size_t>(seq * seq_kv));
  for (std::uint8_t& a : allowed) a = random_between(generator, 0, 99) < percent ? 1 : 0;
  return Mask::dense(allowed, seq);
}

Mask random_segments(std::mt19937& generator, std::int64_t seq, std::int64_t seq_kv) {
  const auto ids = [&](std::int64_t count) {
    std::vector<std::int64_t> list;
    for (std::int64_t i = 0; i < count; ++i) {
      const bool fresh = i == 0 || random_between(generator, 0, 7) == 0;
      list.push_back(fresh ? random_between(generator, -1, 3) : list.back());
    }
    return list;
  };
  if (seq == seq_kv) return Mask::segments(ids(seq));
  return Mask::segments(ids(seq), ids(seq_kv));
}

Problem random_problem(std::mt19937& generator) {
  const std::int64_t seq = random_between(generator, 1, 130);
  const bool same = random_between(generator, 0, 2) > 0;
  Problem p{.batch = random_between(generator, 1, 2),
            .seq = seq,
            .seq_kv = same ? seq : random_between(generator, 1, 130),
            .heads_kv = random_between(generator, 1, 2),
            .head_dim = 8 * random_between(generator, 1, 3),
            .head_dim_v = 8 * random_between(generator, 1, 3)};
  p.heads = *p.heads_kv * random_between(generator, 1, 3);
  switch (random_between(generator, 0, 4)) {
    case 0:
      p.mask = random_dense(generator, seq, *p.seq_kv);
      break;
    case 1:
      p.mask = random_segments(generator, seq, *p.seq_kv);
      break;
    case 2:
      p.mask = Mask::causal() & random_segments(generator, seq, *p.seq_kv);
      break;
    case 3:
      p.mask = Mask::window(20, 5) & random_dense(generator, seq, *p.seq_kv);
      break;
    default:
      p.mask = random_dense(generator, seq, *p.seq_kv) & random_segments(generator, seq, *p.seq_kv);
  }
  return p;
}

void expect_exact(const Problem& problem, const std::vector<RunOptions>& runs, std::uint64_t seed) {
  const OracleInputs inputs = random_inputs(oracle_problem(problem), seed);
  const OracleResult truth = oracle_attention(problem, inputs);
  each_world([&](Mesh& mesh) {
    for (const RunOptions& options : runs) {
      const RankResult result = run_rank(mesh, problem, inputs, options);
      const Sharding sharding = solve_layout(options.layout, problem, mesh.world());
      const Errors e = errors_of(mesh, problem, sharding, result, truth);
      const std::string what =
          describe(problem, options, mesh.world()) + " seed " + std::to_string(seed);
      EXPECT_LE(e.out.largest, kBound) << "out of " << what;
      EXPECT_LE(e.lse.largest, kBound) << "lse of " << what;
      EXPECT_LE(e.dq.largest, kBound) << "dq of " << what;
      EXPECT_LE(e.dk.largest, kBound) << "dk of " << what;
      EXPECT_LE(e.dv.largest, kBound) << "dv of " << what;
    }
  });
}

TEST(Masks, OfAnyShapeEqualTheOracleForEveryAlgorithmAndLayout) {
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    std::mt19937 generator(static_cast<std::uint32_t>(seed));
    expect_exact(random_problem(generator), every_algorithm(), seed);
  }
}

TEST(Masks, OfAnyShapeEqualTheOracleForEveryKernel) {
  std::vector<RunOptions> runs;
  for (const char* kernel : {"flash2", "flash1", "naive", "reference"}) {
    runs.push_back({.algorithm = Algorithm::ring, .layout = Layout::striped(), .kernel = kernel});
  }
  for (std::uint64_t seed = 100; seed < 104; ++seed) {
    std::mt19937 generator(static_cast<std::uint32_t>(seed));
    expect_exact(random_problem(generator), runs, seed);
  }
}

TEST(Masks, OfAnyShapeServeGroupedHeadsInLowPrecision) {
  std::mt19937 generator(5);
  for (const DType dtype : {DType::bf16, DType::f16}) {
    Problem p{.seq = 83, .heads = 6, .heads_kv = 2, .head_dim = 24, .dtype = dtype};
    p.mask = random_dense(generator, 83, 83) & Mask::causal();
    check(p,
          {{.algorithm = Algorithm::ring, .layout = Layout::zigzag()},
           {.algorithm = Algorithm::gather, .layout = Layout::balanced()}},
          9);
  }
}

}  // namespace
}  // namespace annulus::testing
