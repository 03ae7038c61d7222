// Backward around a ring in which queries travel instead of keys: against one rank and the oracle.

#include "tests/engine/check.h"
#include "tests/support/each_world.h"

#include <gtest/gtest.h>

#include <cstring>
#include <utility>
#include <vector>

namespace annulus::testing {
namespace {

constexpr BackwardMoves kEach[] = {BackwardMoves::keys, BackwardMoves::queries};

std::vector<Layout> every_layout() {
  return {Layout::contiguous(), Layout::zigzag(), Layout::striped(), Layout::balanced()};
}

/// The ring with every layout, either way.
std::vector<RunOptions> every_ring() {
  std::vector<RunOptions> runs;
  for (const Layout& layout : every_layout()) {
    for (const BackwardMoves moves : kEach) {
      runs.push_back({.layout = layout, .backward_moves = moves});
    }
  }
  return runs;
}

TEST(BackwardMoves, MatchesSingleRankForEveryLayout) {
  Problem p{.batch = 2, .seq = 61, .heads = 5, .head_dim = 16};
  check(p, every_ring(), 211);
  p = {.batch = 1,
       .seq = 83,
       .heads = 6,
       .heads_kv = 2,
       .head_dim = 24,
       .head_dim_v = 8,
       .dtype = DType::bf16};
  check(p, every_ring(), 212);
  p.dtype = DType::f16;
  p.heads_kv = 6;
  check(p, every_ring(), 213);
}

/// The numbers of Distributed.MatchesSingleRankForEveryMask.
TEST(BackwardMoves, MatchesSingleRankForEveryMask) {
  std::uint64_t seed = 20;
  for (const Mask& mask : every_mask(61)) {
    Problem p{.batch = 1, .seq = 61, .heads = 4, .heads_kv = 2, .head_dim = 8, .mask = mask};
    check(p, every_ring(), seed++);
  }
}

TEST(BackwardMoves, MatchesSingleRankAtTheWidthsOfTensorCores) {
  Problem p{
      .batch = 1, .seq = 307, .heads = 4, .heads_kv = 4, .head_dim = 128, .dtype = DType::bf16};
  std::vector<RunOptions> runs = every_ring();
  for (RunOptions& run : runs) {
    run.calls = 2;
    run.pad = 8;
  }
  check(p, runs, 240);
  p.head_dim = 64;
  p.heads_kv = 2;
  p.dtype = DType::f16;
  p.mask = Mask::documents({100, 7, 200}) & Mask::window(90);
  check(p, runs, 241);
}

TEST(BackwardMoves, MatchesSingleRankWhenKeysAreMoreOrFewerThanQueries) {
  std::uint64_t seed = 250;
  for (const auto& [seq, seq_kv] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {13, 64}, {64, 13}, {1, 9}, {9, 1}, {7, 0}, {0, 5}, {40, 20}}) {
    Problem p{.batch = 1, .seq = seq, .seq_kv = seq_kv, .heads = 2, .head_dim = 8};
    check(p, every_ring(), seed++);
    p.mask = Mask::full();
    check(p, every_ring(), seed++);
  }
}

TEST(BackwardMoves, ServesGivenShardsAndArenas) {
  const std::vector<Shard> all{{{0, 10, 1}, {20, 11, 2}}, {}, {{10, 10, 1}, {21, 10, 2}}};
  Problem p{.batch = 2, .seq = 41, .heads = 2, .head_dim = 8, .dtype = DType::bf16};
  for (const BackwardMoves moves : kEach) {
    check_on({.ring = 3}, p, {{.layout = Layout::given(all), .backward_moves = moves}}, 270);
    check(p, {{.caller_arena = true, .calls = 2, .backward_moves = moves}}, 271);
  }
}

TEST(BackwardMoves, MatchesSingleRankOnHybridMeshes) {
  std::vector<RunOptions> runs;
  for (RunOptions run : every_ring()) {
    run.algorithm = Algorithm::hybrid;
    runs.push_back(run);
  }
  std::uint64_t seed = 280;
  for (const MeshShape shape :
       {MeshShape{.ring = 2, .ulysses = 2}, MeshShape{.ring = 2, .ulysses = 4},
        MeshShape{.ring = 3, .ulysses = 2}, MeshShape{.ring = 2, .ulysses = 3}}) {
    Problem p{
        .batch = 2, .seq = 53, .heads = 5, .head_dim = 8, .mask = Mask::documents({20, 30, 3})};
    check_on(shape, p, runs, seed++);
    p = {.batch = 1, .seq = 53, .heads = 6, .heads_kv = 2, .head_dim = 8, .dtype = DType::bf16};
    check_on(shape, p, runs, seed++);
  }
}

TEST(BackwardMoves, ServesEveryKernel) {
  Problem p{.batch = 1, .seq = 47, .heads = 4, .heads_kv = 2, .head_dim = 8, .softcap = 3.0};
  std::vector<RunOptions> runs;
  for (const char* kernel : {"reference", "naive", "flash1", "flash2"}) {
    runs.push_back({.kernel = kernel, .backward_moves = BackwardMoves::queries});
  }
  runs.push_back({.threads = 2, .backward_moves = BackwardMoves::queries});
  runs.push_back({.blocking = true, .backward_moves = BackwardMoves::queries});
  check(p, runs, 300);
  p.dtype = DType::bf16;
  check(p, runs, 301);
}

bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

TEST(BackwardMoves, GivesTheSameBitsTwice) {
  const Problem p{
      .batch = 1, .seq = 307, .heads = 4, .heads_kv = 2, .head_dim = 64, .dtype = DType::bf16};
  const OracleInputs inputs = random_inputs(oracle_problem(p), 310);
  each_world([&](Mesh& mesh) {
    for (const BackwardMoves moves : kEach) {
      const RunOptions run{.deterministic = true, .backward_moves = moves};
      const RankResult one = run_rank(mesh, p, inputs, run);
      const RankResult two = run_rank(mesh, p, inputs, run);
      EXPECT_TRUE(same_bits(one.dq, two.dq)) << name_of(moves);
      EXPECT_TRUE(same_bits(one.dk, two.dk)) << name_of(moves);
      EXPECT_TRUE(same_bits(one.dv, two.dv)) << name_of(moves);
    }
  });
}

/// What transports count is what plans say: fewer bytes for queries of heads of their own.
TEST(BackwardMoves, SendsTheBytesOfItsPlan) {
  const Problem p{.batch = 2, .seq = 120, .heads = 3, .head_dim = 16, .dtype = DType::bf16};
  const OracleInputs inputs = random_inputs(oracle_problem(p), 320);
  each_world(
      [&](Mesh& mesh) {
        const std::int64_t hops = mesh.world();
        const std::int64_t keys = (hops - 1) * 64 + hops * 128;
        const std::int64_t queries = (hops - 1) * 72 + hops * 64;
        const auto sent = [&](BackwardMoves moves) {
          const RankResult r = run_rank(mesh, p, inputs, {.backward_moves = moves});
          std::vector<std::int64_t> all(static_cast<std::size_t>(mesh.world()));
          all_gather(mesh, std::as_bytes(std::span(&r.backward.bytes_sent, 1)),
                     std::as_writable_bytes(std::span(all)));
          std::int64_t sum = 0;
          for (const std::int64_t bytes : all) sum += bytes;
          return sum;
        };
        EXPECT_EQ(sent(BackwardMoves::keys), 2 * 120 * 3 * keys);
        EXPECT_EQ(sent(BackwardMoves::queries), 2 * 120 * 3 * queries);
        EXPECT_EQ(sent(BackwardMoves::automatic), 2 * 120 * 3 * queries);
      },
      {}, 2);
}

}  // namespace
}  // namespace annulus::testing
