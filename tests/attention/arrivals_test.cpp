// How many transfers a kernel's keys need, against a walk over every token and head.

#include "attention/execute/arrivals.h"

#include "attention/kernels/params.h"

#include <annulus/plan.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

namespace annulus {
namespace {

using Table = std::vector<std::vector<std::uint32_t>>;

/// By token and head of the slot: which transfer brings it, counted from 1.
std::map<std::pair<std::int64_t, std::int32_t>, std::uint32_t> bringers(
    const RankPlan& plan, const std::vector<std::int32_t>& arrivals) {
  std::map<std::pair<std::int64_t, std::int32_t>, std::uint32_t> at;
  std::uint32_t count = 0;
  for (const std::int32_t t : arrivals) {
    const Block& b = plan.transfers[static_cast<std::size_t>(t)].block;
    ++count;
    const bool values = plan.slots[static_cast<std::size_t>(b.slot)].name == "values";
    for (std::int64_t i = 0; i < b.tokens; ++i) {
      for (std::int32_t h = 0; h < b.heads; ++h) {
        const auto place = std::pair(b.token + i * b.token_step, b.head + h);
        EXPECT_EQ(at.contains(place), values) << "two transfers bring one key";
        at[place] = count;  // its value comes behind it
      }
    }
  }
  return at;
}

/// [segment][head * blocks + block], token by token.
Table walked(const RankPlan& plan, const Attend& a, std::int32_t heads,
             const std::vector<std::int32_t>& arrivals) {
  const auto at = bringers(plan, arrivals);
  Table all;
  for (std::int32_t s = 0; s < a.keys.count; ++s) {
    const Segment& segment = plan.segments[static_cast<std::size_t>(a.keys.begin + s)];
    const std::int64_t blocks = attn::arrival_blocks(segment.positions.count);
    auto& needed = all.emplace_back(static_cast<std::size_t>(blocks * heads), 0);
    for (std::int64_t i = 0; i < segment.positions.count; ++i) {
      for (std::int32_t h = 0; h < heads; ++h) {
        const auto found = at.find({segment.token + i, h});
        if (found == at.end()) continue;
        auto& entry = needed[static_cast<std::size_t>(h * blocks + i / attn::kArrivalBlock)];
        entry = std::max(entry, found->second);
      }
    }
  }
  return all;
}

std::vector<PlanRequest> requests() {
  std::vector<PlanRequest> all;
  for (const std::int64_t seq : {1000, 1531}) {
    for (const Mask& mask :
         {Mask::causal(), Mask::full(), Mask::documents({300, 500, seq - 800})}) {
      for (const Layout& layout : {Layout::contiguous(), Layout::zigzag(), Layout::striped()}) {
        for (const auto& [launch, pushes] :
             {std::pair(GatherLaunch::on_arrival, false), std::pair(GatherLaunch::on_arrival, true),
              std::pair(GatherLaunch::in_position, false)}) {
          for (const int slices : {1, 3}) {
            PlanRequest& r = all.emplace_back();
            r.problem = {.seq = seq, .heads = 6, .heads_kv = 3, .head_dim = 2};
            r.problem.mask = mask;
            r.layout = layout;
            r.algorithm = Algorithm::gather;
            r.mesh = {.ring = 3};
            r.options.stage_caller = true;
            r.options.gather_launch = launch;
            r.options.gather_slices = slices;
            r.options.push_keys = pushes;
          }
        }
      }
    }
  }
  return all;
}

TEST(Arrivals, AreCountedForEveryBlockAndHead) {
  int tables = 0;
  for (const PlanRequest& r : requests()) {
    SCOPED_TRACE(fmt::format("seq {} mask {} layout {} launch {} slices {}", r.problem.seq,
                             r.problem.mask.name(), r.layout.name(),
                             static_cast<int>(r.options.gather_launch), r.options.gather_slices));
    const RankPlan plan = make_plan(r).rank(1);
    ASSERT_EQ(plan.attends.size(), 1U);
    const auto item = std::ranges::find(plan.items, ItemKind::attend, &Item::kind);
    const auto arrivals = attn::arrivals_of(plan, *item);
    const Attend& a = plan.attends.front();
    EXPECT_EQ(attn::arrivals_needed(plan, a, 0, 3, arrivals), walked(plan, a, 3, arrivals));
    tables += arrivals.empty() ? 0 : 1;
  }
  EXPECT_GT(tables, 90);
}

TEST(Arrivals, AreOfAttendsThatTakeThemAlone) {
  PlanRequest r;
  r.problem = {.seq = 96, .heads = 4, .heads_kv = 2, .head_dim = 2};
  r.algorithm = Algorithm::gather;
  r.mesh = {.ring = 3};
  const RankPlan plan = make_plan(r).rank(0);
  for (const Item& item : plan.items) EXPECT_TRUE(attn::arrivals_of(plan, item).empty());
}

}  // namespace
}  // namespace annulus
