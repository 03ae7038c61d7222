// Plans of hundreds of random requests: what the checker says, what symbolic execution finds, and
// whether the totals add up.

#include "attention/plan/context.h"
#include "tests/attention/random_request.h"
#include "tests/attention/symbolic.h"

#include <annulus/plan.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <thread>

namespace annulus {
namespace {

using test::BruteMask;
using test::Random;

constexpr std::uint64_t kCases = 2000;

std::vector<RankPlan> all_ranks(const Plan& plan) {
  std::vector<RankPlan> ranks;
  for (int r = 0; r < plan.world(); ++r) ranks.push_back(plan.rank(r));
  return ranks;
}

/// Calls fn(plan, ranks, seed) for random requests.
template <typename Fn>
void for_random_plans(Fn fn) {
  for (std::uint64_t seed = 0; seed < kCases; ++seed) {
    Random random(seed);
    const PlanRequest request = test::random_request(random);
    SCOPED_TRACE(fmt::format("seed {}: {}", seed, test::words(request)));
    const Plan plan = make_plan(request);
    ASSERT_NO_FATAL_FAILURE(fn(plan, all_ranks(plan), seed));
  }
}

TEST(RandomPlans, HaveNoHazard) {
  for_random_plans([](const Plan& plan, const std::vector<RankPlan>& ranks, std::uint64_t) {
    ASSERT_THAT(check_plan(ranks, plan.request().options.stage_caller), testing::IsEmpty());
  });
}

TEST(RandomPlans, MoveWhatTheySayAndComputeEveryPairOnce) {
  for_random_plans([](const Plan& plan, const std::vector<RankPlan>& ranks, std::uint64_t seed) {
    test::SymbolicRun run(plan, ranks, seed);
    ASSERT_THAT(run.run(), testing::IsEmpty());
    const BruteMask& mask = run.mask();
    for (std::int64_t h = 0; h < plan.request().problem.heads; ++h) {
      for (std::int64_t i = 0; i < mask.seq(); ++i) {
        for (std::int64_t j = 0; j < mask.seq_kv(); ++j) {
          ASSERT_EQ(run.times_computed(h, i, j), mask.sees(i, j) ? 1 : 0)
              << "head " << h << " query " << i << " key " << j;
        }
      }
    }
  });
}

TEST(RandomPlans, BalanceTheirBytesAndPairs) {
  for_random_plans([](const Plan& plan, const std::vector<RankPlan>& ranks, std::uint64_t) {
    std::int64_t sent = 0;
    std::int64_t received = 0;
    std::int64_t pairs = 0;
    for (const RankPlan& r : ranks) {
      sent += r.bytes_sent;
      received += r.bytes_received;
      pairs += r.masked_pairs;
      std::int64_t arena = 0;
      for (const PlanSlot& s : r.slots) {
        ASSERT_TRUE(s.space == Space::caller || s.offset == arena) << s.name;
        if (s.space != Space::caller) arena += (s.bytes + 255) / 256 * 256;
      }
      ASSERT_EQ(r.arena_bytes, arena);
      ASSERT_EQ(static_cast<std::size_t>(r.item_count), r.items.size());
      ASSERT_EQ(plan.totals(r.rank), static_cast<const PlanTotals&>(r));
    }
    ASSERT_EQ(sent, received);
    const Problem& p = plan.request().problem;
    ASSERT_EQ(pairs, BruteMask(p).pairs() * p.heads * p.batch);
  });
}

/// Pairs in the tiles of an attend that hold an unmasked one, counted key by key.
std::int64_t executed_pairs(const PlanOptions& options, const RankPlan& r, const Attend& a,
                            const BruteMask& mask) {
  std::vector<std::int64_t> rows;
  for (const TokenRange& range : r.rows) {
    for (std::int64_t i = 0; i < range.count; ++i) rows.push_back(range.position(i));
  }
  std::int64_t executed = 0;
  const Segment& queries = r.segments[static_cast<std::size_t>(a.queries.begin)];
  const std::int64_t last = queries.first_row + queries.positions.count;
  for (std::int64_t row = queries.first_row; row < last; row += options.tile_q) {
    const std::int64_t end = std::min(last, row + options.tile_q);
    for (std::int32_t k = 0; k < a.keys.count; ++k) {
      const TokenRange& keys = r.segments[static_cast<std::size_t>(a.keys.begin + k)].positions;
      std::map<std::int64_t, std::pair<std::int64_t, bool>> tiles;
      for (std::int64_t j = 0; j < keys.count; ++j) {
        auto& [size, seen] = tiles[keys.position(j) / keys.stride / options.tile_k];
        ++size;
        for (std::int64_t i = row; i < end; ++i) {
          seen = seen || mask.sees(rows[static_cast<std::size_t>(i)], keys.position(j));
        }
      }
      for (const auto& [number, tile] : tiles) {
        if (tile.second) executed += (end - row) * tile.first;
      }
    }
  }
  return executed;
}

TEST(RandomPlans, CountTheFlopsOfTheirTiles) {
  for_random_plans([](const Plan& plan, const std::vector<RankPlan>& ranks, std::uint64_t) {
    const Problem& p = plan.request().problem;
    const BruteMask mask(p);
    if (mask.most_runs() > 2) return;  // tiles cut to intervals: see row_table_test
    const std::int64_t widths = plan.request().pass == Pass::forward
                                    ? p.head_dim + *p.head_dim_v
                                    : 3 * p.head_dim + 2 * *p.head_dim_v;
    for (const RankPlan& r : ranks) {
      std::int64_t flops = 0;
      for (const Attend& a : r.attends) {
        const std::int64_t executed = executed_pairs(plan.request().options, r, a, mask);
        ASSERT_EQ(a.flops, 2 * widths * executed * a.heads * p.batch);
        flops += a.flops;
      }
      ASSERT_EQ(r.flops, flops);
    }
  });
}

TEST(RandomPlans, CoverEveryAlgorithmAndOption) {
  std::set<std::string> seen;
  for (std::uint64_t seed = 0; seed < kCases; ++seed) {
    Random random(seed);
    const PlanRequest r = test::random_request(random);
    const Plan plan = make_plan(r);
    const std::string name = fmt::format("{} {} ", name_of(r.algorithm), name_of(r.pass));
    seen.insert(name + r.layout.name());
    if (r.mesh.ulysses > r.problem.heads) seen.insert(name + "ranks without heads");
    if (plan.impl().kv_heads_shared) seen.insert(name + "shared heads");
    if (r.mesh.ulysses > 1 && r.problem.heads % r.mesh.ulysses) seen.insert(name + "uneven heads");
    if (r.options.stage_caller) seen.insert(name + "staged");
    if (r.options.stage_caller && r.mesh.ulysses > 1) {
      if (r.options.give_in_place) seen.insert(name + "gives in place");
      if (r.options.land_in_place) seen.insert(name + "lands in place");
    }
    const std::size_t slices = plan.impl().slice_ends.size();
    if (slices > 1) seen.insert(name + (r.options.stage_caller ? "staged slices" : "slices"));
    if (!r.options.resume && plan.rank(0).merges.size() > 1) seen.insert(name + "merges");
    if (plan.backward_moves() == BackwardMoves::queries) {
      const bool asked = r.options.backward_moves == BackwardMoves::queries;
      seen.insert(name + (asked ? "moves queries" : "chooses queries"));
      if (r.options.stage_caller) seen.insert(name + "moves queries, staged");
    }
  }
  // 2 passes of: 4 algorithms x 5 layouts and staged; 2 with ulysses x 3 cases; slices: ulysses and
  // hybrid of one group, staged and not, and in place: given, landed; merges: ring, hybrid;
  // queries: these, asked, chosen, staged.
  EXPECT_EQ(seen.size(), 2U * (4 * 6 + 2 * 3 + 2 * 2 + 2 * 2) + 2U + 2U * 3)
      << testing::PrintToString(seen);
}

bool same_items(const RankPlan& a, const RankPlan& b) {
  const auto equal_items = [](const Item& x, const Item& y) {
    return x.kind == y.kind && x.step == y.step && x.payload == y.payload &&
           x.waits.begin == y.waits.begin && x.waits.count == y.waits.count;
  };
  const auto equal_transfers = [](const Transfer& x, const Transfer& y) {
    return x.sends == y.sends && x.peer == y.peer && x.tag == y.tag && x.bytes == y.bytes;
  };
  return a.edges == b.edges && a.flops == b.flops && a.arena_bytes == b.arena_bytes &&
         std::equal(a.items.begin(), a.items.end(), b.items.begin(), b.items.end(), equal_items) &&
         std::equal(a.transfers.begin(), a.transfers.end(), b.transfers.begin(), b.transfers.end(),
                    equal_transfers);
}

TEST(RandomPlans, AreTheSameInAnyOrderAndFromAnyThread) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    Random random(seed);
    const PlanRequest request = test::random_request(random);
    const Plan plan = make_plan(request);
    const std::vector<RankPlan> forwards = all_ranks(plan);
    std::vector<RankPlan> threaded(forwards.size());
    std::vector<std::thread> threads;
    for (std::size_t r = forwards.size(); r-- > 0;) {
      threads.emplace_back([&, r] { threaded[r] = plan.rank(static_cast<int>(r)); });
    }
    for (std::thread& t : threads) t.join();
    const Plan again = make_plan(request);
    for (std::size_t r = forwards.size(); r-- > 0;) {
      EXPECT_TRUE(same_items(forwards[r], threaded[r])) << test::words(request);
      EXPECT_TRUE(same_items(forwards[r], again.rank(static_cast<int>(r)))) << test::words(request);
    }
  }
}

}  // namespace
}  // namespace annulus
