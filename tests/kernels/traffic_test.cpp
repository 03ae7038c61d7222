// Bytes that the loops move and keep.
#include "attention/kernels/dispatch.h"
#include "tests/kernels/kernel_checks.h"

#include <string>

namespace annulus::testing {
namespace {

using attn::Kernel;

OracleProblem one_head(std::int64_t batch, std::int64_t seq, std::int64_t dim) {
  return {.batch = batch,
          .seq = seq,
          .seq_kv = seq,
          .head_dim = dim,
          .head_dim_v = dim,
          .softmax_scale = 0.1};
}

/// The classic table's column: temporaries that the algorithm keeps, and the output.
std::int64_t temporaries_and_output(std::string_view name, const OracleProblem& p) {
  attn::AttendGeometry geometry;
  geometry.batch = p.batch;
  geometry.heads = p.heads;
  geometry.head_dim = p.head_dim;
  geometry.head_dim_v = p.head_dim_v;
  geometry.rows = p.seq;
  const attn::KeySegment keys{0, 0, 1, p.seq_kv};
  geometry.keys = {&keys, 1};
  return attn::find_kernel(name, {}).materialized_bytes(geometry, false) +
         p.batch * p.seq * p.heads * p.head_dim_v * 4;
}

TEST(Materialized, IsWhatTheClassicTableSays) {
  EXPECT_EQ(temporaries_and_output("naive", one_head(1, 512, 64)), 2'228'224);
  EXPECT_EQ(temporaries_and_output("flash2", one_head(1, 512, 64)), 131'072);
  EXPECT_EQ(temporaries_and_output("naive", one_head(2, 1024, 64)), 17'301'504);
  EXPECT_EQ(temporaries_and_output("flash2", one_head(2, 1024, 64)), 524'288);
  // flash1: O in f32, l and m of each row.
  EXPECT_EQ(temporaries_and_output("flash1", one_head(1, 512, 64)), 131'072 + 512 * (64 + 2) * 4);
}

TEST(Materialized, FitsIntoTheWorkspace) {
  const OracleProblem problem = one_head(2, 100, 16);
  const TestLaunch launch = make_launch(problem, one_segment(problem));
  for (const Kernel* kernel : attn::kernels("cpu")) {
    for (const bool backward : {false, true}) {
      EXPECT_LE(kernel->materialized_bytes(launch.geometry(), backward),
                kernel->workspace_bytes(launch.geometry(), backward, 1))
          << kernel->name;
    }
  }
}

RunResult run(std::string_view name, std::int64_t seq, const TileGrid& grid = {}) {
  const OracleProblem problem = one_head(1, seq, 32);
  return run_kernel(attn::find_kernel(name, {}), {make_launch(problem, one_segment(problem), grid)},
                    random_inputs(problem, 3));
}

constexpr std::int64_t kSeq = 256;
constexpr std::int64_t kRowBytes = 32 * 4;
constexpr std::int64_t kTensor = kSeq * kRowBytes;
constexpr std::int64_t kScores = kSeq * kSeq * 4;
constexpr std::int64_t kBlocks = kSeq / 64;  // of query rows
constexpr std::int64_t kLse = kSeq * 4;

TEST(Traffic, OfNaiveIsItsScores) {
  const RunResult result = run("naive", kSeq);
  // S written; read twice, P written, read, written; P read. K and V once for each row block.
  EXPECT_EQ(result.forward_bytes, kTensor + kBlocks * 2 * kTensor + 7 * kScores + kTensor + kLse);
  // P and dS written; dS, P and dS read. K, V, K once for each row block; dK and dV read and
  // written for each; Q and dO twice; dQ, dK, dV written once.
  EXPECT_EQ(result.backward_bytes, 5 * kScores + kBlocks * 3 * kTensor + kBlocks * 4 * kTensor +
                                       4 * kTensor + 3 * kTensor + 2 * kLse);
}

TEST(Traffic, OfFlash1IsItsStateForEachKeyBlock) {
  const RunResult result = run("flash1", kSeq);
  const std::int64_t key_blocks = kSeq / 128;
  const std::int64_t state = kTensor + 2 * kLse;  // O, l, m
  // State: written, read and written for each key block, read. Q for each key block.
  EXPECT_EQ(result.forward_bytes,
            2 * kTensor + (2 + 2 * key_blocks) * state + key_blocks * kTensor + kTensor + kLse);
  // Q, dO, lse, delta and dQ (read and written) for each key block; K, V; dK and dV.
  EXPECT_EQ(result.backward_bytes,
            key_blocks * (4 * kTensor + 2 * kLse) + 2 * kTensor + kTensor + 3 * 2 * kTensor);
}

TEST(Traffic, OfFlash2IsLessThanOfFlash1AndOfNaive) {
  // Short sequences are cut into small units for the threads, each of which adds to dK and dV.
  const RunResult flash2 = run("flash2", 2048), flash1 = run("flash1", 2048),
                  naive = run("naive", 2048);
  EXPECT_LT(flash2.forward_bytes, flash1.forward_bytes);
  EXPECT_LT(flash1.forward_bytes, naive.forward_bytes);
  EXPECT_LT(flash2.backward_bytes, flash1.backward_bytes);
  EXPECT_LT(flash1.backward_bytes, naive.backward_bytes);
}

TEST(Traffic, OfFlash2IsEachTensorOnceWhereAUnitHoldsAllRows) {
  const OracleProblem problem = one_head(64, 100, 32);  // batches enough for large units
  const RunResult result =
      run_kernel(attn::find_kernel("flash2", {}), {make_launch(problem, one_segment(problem))},
                 random_inputs(problem, 3), {.backward = false});
  EXPECT_EQ(result.forward_bytes, 64 * 100 * (4 * kRowBytes + 4));
}

}  // namespace
}  // namespace annulus::testing
