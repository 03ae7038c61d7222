// Plans of ulysses that exchange in place: what they neither stage nor copy out.

#include "attention/plan/context.h"
#include "attention/plan/ulysses_parts.h"
#include "tests/attention/schedule_run.h"

#include <annulus/plan.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
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
  r.options.rounded_dkv = true;
  return r;
}

PlanRequest in_place(PlanRequest r) {
  r.options.give_in_place = true;
  r.options.land_in_place = true;
  return r;
}

std::int64_t bytes_of(const PlanRequest& r, const RankPlan& plan, const Block& b) {
  const DType dtype = plan.slots[static_cast<std::size_t>(b.slot)].dtype;
  return r.problem.batch * b.tokens * b.heads * b.dims * size_of(dtype);
}

std::int64_t copied_bytes(const PlanRequest& r, const RankPlan& plan) {
  std::int64_t bytes = 0;
  for (const Prepare& p : plan.prepares) {
    if (p.kind == PrepareKind::copy) bytes += bytes_of(r, plan, p.target);
  }
  return bytes;
}

/// Of own tokens and own heads: rows, keys.
struct Own {
  std::int64_t row = 0;
  std::int64_t key = 0;
};

Own own_of(const Plan& plan, int rank) {
  const auto m = static_cast<std::size_t>(rank);
  const std::int64_t batch = plan.request().problem.batch;
  return {batch * plan.sharding().seq_local(rank) * plan.impl().heads[m].count,
          batch * plan.sharding().seq_kv_local(rank) * plan.impl().heads_kv[m].count};
}

constexpr std::int64_t kQ = 4 * 2, kV = 2 * 2, kKeys = (4 + 2) * 2, kLse = 4;  // bytes

TEST(UlyssesInPlace, CopiesOwnPartsAlone) {
  for (const int world : {2, 3, 4, 8}) {
    for (const int slices : {1, 3}) {
      for (const Pass pass : {Pass::forward, Pass::backward}) {
        SCOPED_TRACE(fmt::format("{} ranks, {} slices, {}", world, slices, name_of(pass)));
        // Key/value heads with a reader each: else their sums are no copies.
        PlanRequest r = world == 3 ? request_of(3, 24, 12, pass) : request_of(world, 32, 8, pass);
        r.options.ulysses_slices = slices;
        const Plan staged = make_plan(r);
        const Plan plan = make_plan(in_place(r));
        const bool forward = pass == Pass::forward;
        for (int rank = 0; rank < world; ++rank) {
          const Own own = own_of(plan, rank);
          const std::int64_t in = own.row * (forward ? kQ : kQ + kV + kLse) + own.key * kKeys;
          const std::int64_t out = forward ? own.row * (kV + kLse) : own.row * kQ + own.key * kKeys;
          EXPECT_EQ(copied_bytes(r, plan.rank(rank)), in + out);
          EXPECT_GT(copied_bytes(r, staged.rank(rank)), in + out);
          EXPECT_EQ(plan.totals(rank).bytes_sent, staged.totals(rank).bytes_sent);
        }
      }
    }
  }
}

std::int64_t padded(std::int64_t bytes) { return (bytes + 255) / 256 * 256; }

TEST(UlyssesInPlace, HoldsSlotsOfTheGroupAlone) {
  for (const int world : {2, 4, 8}) {
    const Plan plan = make_plan(in_place(request_of(world, 32, 8, Pass::forward)));
    for (int rank = 0; rank < world; ++rank) {
      const std::int64_t rows = 2 * 97 * (32 / world);  // batch, tokens, heads
      const std::int64_t keys = 2 * 97 * (8 / world);
      EXPECT_EQ(plan.totals(rank).arena_bytes, padded(keys * kQ) + padded(keys * kV) +
                                                   padded(rows * kQ) + padded(rows * kV) +
                                                   padded(rows * kLse));
    }
  }
}

/// Each way alone takes less than none, and both less than each.
TEST(UlyssesInPlace, TakesLessMemoryEachWay) {
  for (const Pass pass : {Pass::forward, Pass::backward}) {
    for (const auto& [heads, heads_kv] :
         {std::pair(32, 8), std::pair(10, 1)}) {  // one and many readers
      const auto bytes = [&](bool gives, bool lands) {
        PlanRequest r = request_of(4, heads, heads_kv, pass);
        r.options.give_in_place = gives;
        r.options.land_in_place = lands;
        return make_plan(r).totals(1).arena_bytes;
      };
      EXPECT_LT(bytes(true, false), bytes(false, false));
      EXPECT_LT(bytes(false, true), bytes(false, false));
      EXPECT_LT(bytes(true, true), bytes(true, false));
      EXPECT_LT(bytes(true, true), bytes(false, true));
    }
  }
}

TEST(UlyssesInPlace, LetsTheOwnerOfATensorMoveIt) {
  for (const MeshShape mesh : {MeshShape{.ring = 1, .ulysses = 4}, {.ring = 2, .ulysses = 2}}) {
    for (const Pass pass : {Pass::forward, Pass::backward}) {
      PlanRequest r = in_place(request_of(4, 32, 8, pass));
      r.mesh = mesh;
      if (mesh.ring > 1) r.algorithm = Algorithm::hybrid;
      const RankPlan plan = make_plan(r).rank(1);
      std::set<std::string> touched;
      for (const Transfer& t : plan.transfers) {
        const PlanSlot& slot = plan.slots[static_cast<std::size_t>(t.block.slot)];
        if (slot.space != Space::caller) continue;
        EXPECT_EQ(t.mover, t.sends ? Mover::sender : Mover::receiver) << slot.name;
        touched.insert(std::string(slot.name));
      }
      const std::set<std::string> all =
          pass == Pass::forward
              ? std::set<std::string>{"q", "k", "v", "out", "lse"}
              : std::set<std::string>{"q", "k", "v", "dout", "lse", "dq", "dk", "dv"};
      EXPECT_EQ(touched, all);
    }
  }
}

/// Nothing is staged for later slices, so that the second attend does not wait for the third's.
TEST(UlyssesInPlace, BringsEachSliceInARoundBehindTheFirstAttend) {
  PlanRequest r = in_place(request_of(4, 32, 8, Pass::forward));
  r.options.ulysses_slices = 3;
  const RankPlan plan = make_plan(r).rank(1);
  const attn::Schedule schedule = attn::make_schedule(plan, test::Link{4}.traits(plan));
  std::vector<std::set<std::int32_t>> rounds(3);  // by slice: of what is pushed
  for (const Item& item : plan.items) {
    if (item.kind != ItemKind::transfer) continue;
    const Transfer& t = plan.transfers[static_cast<std::size_t>(item.payload)];
    if (t.mover == Mover::sender && t.sends) {
      rounds[static_cast<std::size_t>(item.step)].insert(t.round);
    }
  }
  ASSERT_EQ(rounds[1].size(), 1U);
  ASSERT_EQ(rounds[2].size(), 1U);
  EXPECT_LT(*rounds[1].begin(), *rounds[2].begin());
  std::vector<std::int32_t> steps;  // of attends, -1, and of launches of pushes, in enqueue order
  for (const attn::Step& s : schedule.steps) {
    if (s.kind == Kind::compute) {
      const Item& item = plan.items[static_cast<std::size_t>(s.index)];
      if (item.kind == ItemKind::attend) steps.push_back(-1);
    } else if (s.kind == Kind::transfer) {
      const Transfer& t = plan.transfers[static_cast<std::size_t>(s.index)];
      if (!t.sends) continue;
      for (std::int32_t i = 0; i < 3; ++i) {
        if (rounds[static_cast<std::size_t>(i)].contains(t.round)) steps.push_back(i);
      }
    }
  }
  // K and V, then q of the first slice.
  EXPECT_THAT(steps, testing::ElementsAre(0, 0, -1, 1, 2, -1, -1));
}

/// What a rank waits for is there without it: its flags of all slices stand before its first push.
TEST(UlyssesInPlace, SaysThatSlotsAreFreeBeforeItPushes) {
  for (const bool one_lane : {false, true}) {
    for (const int slices : {1, 3}) {
      PlanRequest r = in_place(request_of(4, 32, 8, Pass::forward));
      r.options.ulysses_slices = slices;
      const Plan plan = make_plan(r);
      std::vector<RankPlan> ranks;
      for (int i = 0; i < 4; ++i) ranks.push_back(plan.rank(i));
      EXPECT_EQ(test::ScheduleRun(ranks, test::Link{4}, one_lane).play(), "");
      const RankPlan& rank = ranks[2];
      const attn::Schedule schedule = attn::make_schedule(rank, test::Link{4}.traits(rank));
      const auto first = [&](Kind kind) {
        return std::ranges::find(schedule.steps, kind, &attn::Step::kind) - schedule.steps.begin();
      };
      EXPECT_LT(first(Kind::raise), first(Kind::transfer));
      // Of q, K and V from three others, in all slices; keys of the third slice came before.
      EXPECT_EQ(schedule.steps[static_cast<std::size_t>(first(Kind::raise))].count,
                slices == 1 ? 9 : 9 + 9 + 3);
    }
  }
}

}  // namespace
}  // namespace annulus
