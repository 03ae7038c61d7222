// Plans of ulysses in slices: what they share with those in one, and what runs beside what.

#include "attention/execute/memory.h"
#include "attention/execute/schedule.h"
#include "attention/plan/context.h"
#include "tests/attention/schedule_run.h"

#include <annulus/plan.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace annulus {
namespace {

using Kind = attn::Step::Kind;

PlanRequest request_of(int world, std::int64_t heads, std::int64_t heads_kv, Pass pass) {
  PlanRequest r;
  r.problem.batch = 2;
  r.problem.seq = 97;
  r.problem.heads = heads;
  r.problem.heads_kv = heads_kv;
  r.problem.head_dim = 4;
  r.problem.head_dim_v = 2;
  r.problem.dtype = DType::bf16;
  r.algorithm = Algorithm::ulysses;
  r.mesh = {.ring = 1, .ulysses = world};
  r.pass = pass;
  r.options.stage_caller = true;
  r.options.tile_q = 8;
  r.options.tile_k = 16;
  return r;
}

/// Heads that divide, that do not, fewer key/value heads than ranks, fewer heads than ranks.
const std::vector<std::pair<std::int64_t, std::int64_t>> kHeads{{32, 8}, {32, 32}, {12, 4}, {9, 3},
                                                                {7, 7},  {10, 1},  {3, 3}};

/// PlanOptions::stage_caller, give_in_place, land_in_place.
struct Ways {
  bool staged = true;
  bool gives = false;
  bool lands = false;
};
constexpr Ways kWays[] = {
    {}, {false}, {true, true, true}, {true, true, false}, {true, false, true}};

void for_every_request(const std::function<void(PlanRequest&)>& fn) {
  for (int world = 1; world <= 8; ++world) {
    for (const auto& [heads, heads_kv] : kHeads) {
      for (const Pass pass : {Pass::forward, Pass::backward}) {
        for (const Ways& ways : kWays) {
          PlanRequest r = request_of(world, heads, heads_kv, pass);
          r.options.stage_caller = ways.staged;
          r.options.give_in_place = ways.gives;
          r.options.land_in_place = ways.lands;
          SCOPED_TRACE(fmt::format("{} ranks, {}:{} heads, {}, staged {} in place {} {}", world,
                                   heads, heads_kv, name_of(pass), ways.staged, ways.gives,
                                   ways.lands));
          ASSERT_NO_FATAL_FAILURE(fn(r));
        }
      }
    }
  }
}

TEST(UlyssesSlices, CostWhatOneSliceCosts) {
  for_every_request([](PlanRequest& r) {
    const Plan one = make_plan(r);
    for (const int slices : {0, 2, 3, 5}) {
      r.options.ulysses_slices = slices;
      const Plan plan = make_plan(r);
      for (int rank = 0; rank < plan.world(); ++rank) {
        const PlanTotals whole = one.totals(rank);
        const PlanTotals cut = plan.totals(rank);
        ASSERT_EQ(cut.masked_pairs, whole.masked_pairs);
        ASSERT_EQ(cut.flops, whole.flops);
        ASSERT_EQ(cut.bytes_sent, whole.bytes_sent);
        ASSERT_EQ(cut.bytes_received, whole.bytes_received);
        // A session takes its memory before it knows the slices.
        ASSERT_EQ(cut.arena_bytes, whole.arena_bytes);
      }
    }
  });
}

TEST(UlyssesSlices, HaveNoHazard) {
  for_every_request([](PlanRequest& r) {
    for (const int slices : {1, 2, 5}) {
      r.options.ulysses_slices = slices;
      ASSERT_THAT(check_plan(make_plan(r)), testing::IsEmpty()) << slices << " slices";
    }
  });
}

TEST(UlyssesSlices, LeaveCallersTensorsToTheirRankWhereStaged) {
  for_every_request([](PlanRequest& r) {
    if (!r.options.stage_caller || r.options.give_in_place || r.options.land_in_place) return;
    r.options.ulysses_slices = 3;
    const Plan plan = make_plan(r);
    for (int rank = 0; rank < plan.world(); ++rank) {
      const RankPlan p = plan.rank(rank);
      for (const Transfer& t : p.transfers) {
        const PlanSlot& slot = p.slots[static_cast<std::size_t>(t.block.slot)];
        ASSERT_NE(slot.space, Space::caller) << slot.name;
      }
    }
  });
}

/// Runs of memory that a transfer's block is made of.
std::int64_t runs_of(const PlanRequest& r, const RankPlan& plan, const Transfer& t) {
  static std::byte arena[1];  // is never touched
  const attn::Memory memory(plan, r.problem.batch, arena);
  const comm::Region region = comm::coalesce(memory.region(t.block));
  return region.count[0] * region.count[1] * region.count[2];
}

TEST(UlyssesSlices, FetchWholePiecesWhereStaged) {
  for_every_request([](PlanRequest& r) {
    if (!r.options.stage_caller || r.options.give_in_place || r.options.land_in_place) return;
    for (const int slices : {1, 3}) {
      r.options.ulysses_slices = slices;
      const Plan plan = make_plan(r);
      if (plan.impl().slice_ends.empty()) continue;
      std::vector<RankPlan> ranks;
      for (int rank = 0; rank < plan.world(); ++rank) ranks.push_back(plan.rank(rank));
      for (const RankPlan& from : ranks) {
        for (const Transfer& t : from.transfers) {
          if (!t.sends) continue;
          const RankPlan& to = ranks[static_cast<std::size_t>(t.peer)];
          const auto end = std::find_if(
              to.transfers.begin(), to.transfers.end(),
              [&](const auto& o) { return !o.sends && o.peer == from.rank && o.tag == t.tag; });
          ASSERT_NE(end, to.transfers.end());
          const std::int64_t given = runs_of(r, from, t);
          const std::int64_t taken = runs_of(r, to, *end);
          // One for each batch element where heads of a rank's own tokens lie; no more than one a
          // head where those of the group do.
          ASSERT_LE(std::min(given, taken), r.problem.batch);
          ASSERT_LE(std::max(given, taken), r.problem.batch * t.block.heads);
        }
      }
    }
  });
}

/// Steps of transfers that move data here, by the tensor.
std::vector<std::pair<std::string, std::int32_t>> moves_of(const RankPlan& plan,
                                                           const attn::Schedule& schedule) {
  std::vector<std::pair<std::string, std::int32_t>> moves;
  for (const attn::Step& s : schedule.steps) {
    if (s.kind != Kind::transfer) continue;
    const Transfer& t = plan.transfers[static_cast<std::size_t>(s.index)];
    moves.emplace_back(plan.slots[static_cast<std::size_t>(t.block.slot)].name, t.round);
  }
  return moves;
}

TEST(UlyssesSlices, OneTensorMovesWhileTheNextIsStagedOrRounded) {
  using testing::ElementsAre;
  using testing::Pair;
  const auto moves = [](Pass pass) {
    const RankPlan plan = make_plan(request_of(2, 32, 8, pass)).rank(0);
    return moves_of(plan, attn::make_schedule(plan, test::Link{2}.traits(plan)));
  };
  const auto named = [](const char* name) { return Pair(std::string(name), testing::_); };
  EXPECT_THAT(moves(Pass::forward),
              ElementsAre(named("kv of heads"), named("q of heads"), named("lse part")));
  EXPECT_THAT(moves(Pass::backward),
              ElementsAre(named("kv of heads"), named("q of heads"), named("dout of heads"),
                          named("delta of heads"), named("dq"), named("kv")));
}

/// Transfers that an item waits for, by way of other items too.
void collect(const RankPlan& plan, std::int32_t i, std::vector<bool>& seen) {
  if (seen[static_cast<std::size_t>(i)]) return;
  seen[static_cast<std::size_t>(i)] = true;
  for (const std::int32_t w : plan.waits(plan.items[static_cast<std::size_t>(i)])) {
    collect(plan, w, seen);
  }
}

TEST(UlyssesSlices, AttendsWaitForTheirOwnSliceAndThoseBefore) {
  for_every_request([](PlanRequest& r) {
    r.options.ulysses_slices = 4;
    const Plan plan = make_plan(r);
    for (int rank = 0; rank < plan.world(); ++rank) {
      const RankPlan p = plan.rank(rank);
      for (std::size_t i = 0; i < p.items.size(); ++i) {
        if (p.items[i].kind != ItemKind::attend) continue;
        std::vector<bool> seen(p.items.size(), false);
        collect(p, static_cast<std::int32_t>(i), seen);
        for (std::size_t w = 0; w < i; ++w) {
          if (!seen[w] || p.items[w].kind != ItemKind::transfer) continue;
          ASSERT_LE(p.items[w].step, p.items[i].step) << describe(p, static_cast<std::int32_t>(w));
        }
      }
    }
  });
}

/// What the steps of a schedule between its first and its last attend compute.
std::vector<PrepareKind> between_attends(const RankPlan& plan, const attn::Schedule& schedule) {
  std::vector<PrepareKind> found;
  std::vector<PrepareKind> since;  // an attend
  bool attended = false;
  for (const attn::Step& s : schedule.steps) {
    if (s.kind != Kind::compute) continue;
    const Item& item = plan.items[static_cast<std::size_t>(s.index)];
    if (item.kind == ItemKind::attend) {
      attended = true;
      found.insert(found.end(), since.begin(), since.end());
      since.clear();
    } else if (attended) {
      EXPECT_EQ(item.kind, ItemKind::prepare);
      since.push_back(plan.prepares[static_cast<std::size_t>(item.payload)].kind);
    }
  }
  return found;
}

TEST(UlyssesSlices, NothingIsCopiedBetweenAttends) {
  const auto kinds = [](Pass pass) {
    PlanRequest r = request_of(4, 32, 8, pass);
    r.options.ulysses_slices = 2;
    const RankPlan plan = make_plan(r).rank(1);
    EXPECT_EQ(plan.attends.size(), 2U);
    return between_attends(plan, attn::make_schedule(plan, test::Link{4}.traits(plan)));
  };
  EXPECT_THAT(kinds(Pass::forward), testing::IsEmpty());
  EXPECT_THAT(kinds(Pass::backward),
              testing::ElementsAre(PrepareKind::convert, PrepareKind::convert));
}

/// Steps of the compute lane up to its attend number `n`.
std::size_t attend_at(const RankPlan& plan, const attn::Schedule& schedule, int n) {
  for (std::size_t i = 0; i < schedule.steps.size(); ++i) {
    const attn::Step& s = schedule.steps[i];
    if (s.kind != Kind::compute) continue;
    if (plan.items[static_cast<std::size_t>(s.index)].kind == ItemKind::attend && n-- == 0) {
      return i;
    }
  }
  return schedule.steps.size();
}

TEST(UlyssesSlices, ResultsGoHomeUnderTheNextAttend) {
  PlanRequest r = request_of(4, 32, 8, Pass::forward);
  r.options.ulysses_slices = 3;
  const RankPlan plan = make_plan(r).rank(1);
  const std::vector<attn::TransferTraits> traits = test::Link{4}.traits(plan);
  const attn::Schedule schedule = attn::make_schedule(plan, traits);
  for (int n = 0; n < 3; ++n) {
    const std::size_t at = attend_at(plan, schedule, n);
    ASSERT_LT(at, schedule.steps.size());
    // Flags follow at once; what others have is fetched on the other lane.
    const auto next = std::find_if(schedule.steps.begin() + static_cast<std::ptrdiff_t>(at) + 1,
                                   schedule.steps.end(), [](const attn::Step& s) {
                                     return s.lane == attn::Lane::compute &&
                                            s.kind != Kind::record && s.kind != Kind::wait;
                                   });
    ASSERT_NE(next, schedule.steps.end());
    EXPECT_EQ(next->kind, Kind::raise) << "slice " << n;
    // Out of slice n to three others; lse of all heads with the last one.
    EXPECT_EQ(next->count, n == 2 ? 6 : 3);
  }
  std::ptrdiff_t moved = 0;
  for (std::size_t i = attend_at(plan, schedule, 0); i < attend_at(plan, schedule, 2); ++i) {
    const attn::Step& step = schedule.steps[i];
    if (step.kind != Kind::transfer) continue;
    moved += std::count_if(traits.begin(), traits.end(), [&](const attn::TransferTraits& t) {
      return t.group_end == step.index;
    });
  }
  // Between the first attend and the last one, with each of three others: keys of the second slice
  // (the third reads the same), q of both, out of the first.
  EXPECT_EQ(moved, 3 * (1 + 2 + 1));
}

TEST(UlyssesSlices, KeysOfSeveralSlicesComeOnce) {
  // Four query heads a key/value head: the second slice of a rank reads keys that the first has.
  PlanRequest r = request_of(4, 16, 4, Pass::forward);
  r.options.ulysses_slices = 2;
  const RankPlan plan = make_plan(r).rank(0);
  std::vector<int> keys(2, 0);
  for (const Item& item : plan.items) {
    if (item.kind != ItemKind::transfer) continue;
    const Transfer& t = plan.transfers[static_cast<std::size_t>(item.payload)];
    const bool kv = plan.slots[static_cast<std::size_t>(t.block.slot)].name == "kv of heads";
    if (kv) ++keys[static_cast<std::size_t>(item.step)];
  }
  EXPECT_THAT(keys, testing::ElementsAre(3, 0));
}

}  // namespace
}  // namespace annulus
