// What a ring moves in backward: how many bytes, and which of the two `auto` takes.

#include "tests/attention/random_request.h"

#include <annulus/plan.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace annulus {
namespace {

PlanRequest request_of(std::int64_t heads_kv, BackwardMoves moves = BackwardMoves::automatic) {
  PlanRequest r;
  r.problem = {.batch = 3,
               .seq = 64,
               .heads = 4,
               .heads_kv = heads_kv,
               .head_dim = 16,
               .head_dim_v = 8,
               .dtype = DType::bf16};
  r.mesh = {.ring = 4};
  r.pass = Pass::backward;
  r.options.backward_moves = moves;
  return r;
}

struct Sums {
  std::int64_t sent = 0;
  std::int64_t flops = 0;
  std::int64_t pairs = 0;
  std::int64_t arena = 0;  ///< of the rank that needs most
};

Sums sums_of(const Plan& plan) {
  Sums sums;
  for (int r = 0; r < plan.world(); ++r) {
    const PlanTotals t = plan.totals(r);
    sums.sent += t.bytes_sent;
    sums.flops += t.flops;
    sums.pairs += t.masked_pairs;
    sums.arena = std::max(sums.arena, t.arena_bytes);
  }
  return sums;
}

TEST(RingMoves, TheseBytes) {
  // 3 x 64 tokens and 4 heads. Three hops of K and V, (16 + 8) x 2 bytes, and four of dK and dV in
  // fp32; or of Q and dO, LSE and row sums, and four of dQ.
  constexpr std::int64_t kTokenHeads = 3 * 64 * 4;
  constexpr std::int64_t kKeys = kTokenHeads * (3 * 48 + 4 * 96);
  constexpr std::int64_t kQueries = kTokenHeads * (3 * (48 + 8) + 4 * 64);
  EXPECT_EQ(kKeys, 405504);
  EXPECT_EQ(kQueries, 325632);
  const Plan keys = make_plan(request_of(4, BackwardMoves::keys));
  EXPECT_EQ(keys.backward_moves(), BackwardMoves::keys);
  EXPECT_EQ(keys.ring_bytes().keys, kKeys);
  EXPECT_EQ(keys.ring_bytes().queries, kQueries);
  EXPECT_EQ(sums_of(keys).sent, kKeys);
  const Plan queries = make_plan(request_of(4, BackwardMoves::queries));
  EXPECT_EQ(queries.backward_moves(), BackwardMoves::queries);
  EXPECT_EQ(queries.ring_bytes().keys, kKeys);
  EXPECT_EQ(sums_of(queries).sent, kQueries);
  EXPECT_EQ(make_plan(request_of(4)).hash(), queries.hash());
  // Two query heads a key/value head: half of what keys send.
  EXPECT_EQ(make_plan(request_of(2)).ring_bytes().keys, kKeys / 2);
  EXPECT_EQ(sums_of(make_plan(request_of(2))).sent, kKeys / 2);
  EXPECT_EQ(make_plan(request_of(2)).hash(), make_plan(request_of(2, BackwardMoves::keys)).hash());
  EXPECT_EQ(sums_of(make_plan(request_of(2, BackwardMoves::queries))).sent, kQueries);
}

TEST(RingMoves, FewQueriesPastManyKeys) {
  PlanRequest r = request_of(1);
  r.problem.seq = 8;
  r.problem.seq_kv = 64;
  EXPECT_EQ(make_plan(r).backward_moves(), BackwardMoves::queries);
  r.problem.seq = 64;
  r.problem.seq_kv = 8;
  r.problem.heads_kv = 4;
  EXPECT_EQ(make_plan(r).backward_moves(), BackwardMoves::keys);
  r.problem.seq = r.problem.seq_kv.emplace(0);
  EXPECT_EQ(make_plan(r).backward_moves(), BackwardMoves::keys);  // equal
}

TEST(RingMoves, NothingElsewhere) {
  const auto moves = [](Algorithm algorithm, MeshShape mesh, Pass pass, Algorithm outer) {
    PlanRequest r = request_of(4, BackwardMoves::queries);
    r.algorithm = algorithm;
    r.mesh = mesh;
    r.pass = pass;
    r.options.outer = outer;
    const Plan plan = make_plan(r);
    if (plan.backward_moves() == BackwardMoves::keys) {
      EXPECT_EQ(plan.ring_bytes().keys, 0);
      r.options.backward_moves = BackwardMoves::keys;
      EXPECT_EQ(plan.hash(), make_plan(r).hash());
    }
    return plan.backward_moves();
  };
  using enum Algorithm;
  EXPECT_EQ(moves(ring, {.ring = 4}, Pass::forward, ring), BackwardMoves::keys);
  EXPECT_EQ(moves(ring, {.ring = 1}, Pass::backward, ring), BackwardMoves::keys);
  EXPECT_EQ(moves(gather, {.ring = 4}, Pass::backward, ring), BackwardMoves::keys);
  EXPECT_EQ(moves(ulysses, {.ulysses = 4}, Pass::backward, ring), BackwardMoves::keys);
  EXPECT_EQ(moves(hybrid, {.ring = 2, .ulysses = 2}, Pass::backward, gather), BackwardMoves::keys);
  EXPECT_EQ(moves(hybrid, {.ring = 2, .ulysses = 2}, Pass::backward, ring), BackwardMoves::queries);
}

/// Whatever the shards, heads and mask: the same work, and the bytes that are said.
TEST(RingMoves, TheSamePairsWithTheBytesThatItSays) {
  int rings = 0;
  int hybrids = 0;
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    test::Random random(seed);
    PlanRequest r = test::random_request(random);
    r.pass = Pass::backward;
    r.options.backward_moves = BackwardMoves::keys;
    const Plan keys = make_plan(r);
    if (keys.ring_bytes().keys + keys.ring_bytes().queries == 0) continue;
    SCOPED_TRACE(fmt::format("seed {}: {}", seed, test::words(r)));
    r.options.backward_moves = BackwardMoves::queries;
    const Plan queries = make_plan(r);
    const Sums k = sums_of(keys);
    const Sums q = sums_of(queries);
    ASSERT_EQ(k.pairs, q.pairs);
    if (r.problem.mask.name() == "full") {
      ASSERT_EQ(k.flops, q.flops);
    }
    const RingBytes bytes = queries.ring_bytes();
    // Between the members of a group the same travels.
    ASSERT_EQ(k.sent - bytes.keys, q.sent - bytes.queries);
    if (r.algorithm == Algorithm::ring) {
      ASSERT_EQ(k.sent, bytes.keys);
      ++rings;
    } else {
      ++hybrids;
    }
    r.options.backward_moves = BackwardMoves::automatic;
    const bool fewer = bytes.queries < bytes.keys;
    ASSERT_EQ(make_plan(r).hash(), (fewer ? queries : keys).hash());
  }
  EXPECT_GT(rings, 200);
  EXPECT_GT(hybrids, 100);
}

/// As many heads and widths as Llama 2 has: also less memory.
TEST(RingMoves, TakesLessMemoryWithOneHeadEach) {
  PlanRequest r = request_of(4, BackwardMoves::keys);
  r.problem.head_dim = 128;
  r.problem.head_dim_v = 128;
  r.problem.seq = 4096;
  const Sums keys = sums_of(make_plan(r));
  r.options.backward_moves = BackwardMoves::queries;
  const Sums queries = sums_of(make_plan(r));
  // A token and head: 2 x 512 of K|V, 3 x 1024 of dK|dV, 512 of dQ, 4 of row sums; or 2 x 512 of
  // Q|dO, 2 x 8 of LSE and row sums, 3 x 512 of dQ, 1024 of dK|dV, 4 of row sums.
  constexpr std::int64_t kTokenHeads = 3 * 1024 * 4;
  EXPECT_EQ(keys.arena, kTokenHeads * (1024 + 3072 + 512 + 4));
  EXPECT_EQ(queries.arena, kTokenHeads * (1024 + 16 + 1536 + 1024 + 4));
  EXPECT_EQ(keys.flops, queries.flops);
}

/// A window meets two chunks: rows of others come, but only those that work have tables.
TEST(RingMoves, HoldsRowsThatBringWorkAlone) {
  PlanRequest r = request_of(4, BackwardMoves::queries);
  r.layout = Layout::contiguous();
  r.problem.mask = Mask::window(16);
  const RankPlan plan = make_plan(r).rank(1);
  ASSERT_EQ(plan.attends.size(), 2U);
  const std::vector<TokenRange> rows{{16, 16, 1}, {32, 16, 1}};
  EXPECT_EQ(plan.rows, rows);
  std::vector<std::int64_t> first;
  for (const Attend& a : plan.attends) {
    first.push_back(plan.segments[static_cast<std::size_t>(a.queries.begin)].first_row);
  }
  EXPECT_EQ(first, (std::vector<std::int64_t>{0, 16}));
}

}  // namespace
}  // namespace annulus
