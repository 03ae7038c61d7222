// Times of a GPU's steps to samples of items, for every link, without a GPU.

#include "attention/execute/step_samples.h"
#include "tests/attention/schedule_run.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace annulus::test {
namespace {

using attn::Schedule;
using attn::Step;
using attn::StepTime;

std::vector<RankPlan> plans(Algorithm algorithm, Pass pass, GatherLaunch launch) {
  PlanRequest r;
  r.problem.seq = 96;
  r.problem.heads = 8;
  r.problem.heads_kv = 4;
  r.problem.head_dim = 2;
  r.algorithm = algorithm;
  r.mesh = algorithm == Algorithm::ulysses ? MeshShape{.ring = 1, .ulysses = 4} : MeshShape{4, 1};
  if (algorithm == Algorithm::hybrid) r.mesh = {.ring = 2, .ulysses = 2};
  r.pass = pass;
  r.options.stage_caller = true;
  r.options.gather_launch = launch;
  const Plan plan = make_plan(r);
  std::vector<RankPlan> ranks;
  for (int i = 0; i < 4; ++i) ranks.push_back(plan.rank(i));
  return ranks;
}

/// Step s takes from s to s + 1.
std::vector<StepTime> one_a_step(const Schedule& schedule) {
  std::vector<StepTime> times;
  for (std::size_t s = 0; s < schedule.steps.size(); ++s) {
    times.push_back({static_cast<double>(s), static_cast<double>(s + 1)});
  }
  return times;
}

/// The step that computes or starts what an item is.
std::size_t step_of(const RankPlan& plan, const std::vector<attn::TransferTraits>& traits,
                    const Schedule& schedule, std::int32_t item) {
  const Item& it = plan.items[static_cast<std::size_t>(item)];
  const bool moves = it.kind == ItemKind::transfer;
  const std::int32_t index = moves ? traits[static_cast<std::size_t>(it.payload)].group_end : item;
  const auto found = std::ranges::find_if(schedule.steps, [&](const Step& s) {
    if (moves && s.kind == Step::Kind::move) return s.index == it.payload;  // one of its group
    if (moves && s.kind == Step::Kind::raise) {
      const auto* first = schedule.raised.data() + s.index;
      return std::find(first, first + s.count, index) != first + s.count;
    }
    return s.kind == (moves ? Step::Kind::transfer : Step::Kind::compute) && s.index == index;
  });
  return static_cast<std::size_t>(found - schedule.steps.begin());
}

void expect_samples(const RankPlan& plan, const Link& link) {
  const auto traits = link.traits(plan);
  const Schedule schedule = attn::make_schedule(plan, traits);
  const auto samples = attn::item_samples(plan, traits, schedule, one_a_step(schedule));
  ASSERT_EQ(samples.size(), plan.items.size());
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(samples.size()); ++i) {
    SCOPED_TRACE(describe(plan, i));
    const ItemSample& s = samples[static_cast<std::size_t>(i)];
    const Item& it = plan.items[static_cast<std::size_t>(i)];
    EXPECT_EQ(s.item, i);
    const std::size_t step = step_of(plan, traits, schedule, i);
    const auto began = static_cast<double>(step);
    const bool arrives = schedule.steps[step].kind == Step::Kind::move;
    if (arrives) {
      EXPECT_LE(s.begin_s, began);  // the first has the wait for all
    } else {
      EXPECT_EQ(s.begin_s, began);
    }
    const bool flag =
        it.kind == ItemKind::transfer && traits[static_cast<std::size_t>(it.payload)].by_flag;
    EXPECT_EQ(s.by_flag, flag);
    if (flag) {
      EXPECT_GE(s.await_s, s.begin_s + 1);  // after it was raised
      EXPECT_EQ(s.end_s, s.await_s + 1);
    } else {
      EXPECT_EQ(s.await_s, s.begin_s);
      EXPECT_EQ(s.end_s, began + 1);
    }
    for (const std::int32_t w : plan.waits(it)) {
      EXPECT_LT(samples[static_cast<std::size_t>(w)].begin_s, s.end_s);
    }
  }
}

TEST(StepSamples, HaveEveryItemOfEveryPlanOnEveryLink) {
  for (const Algorithm algorithm :
       {Algorithm::ring, Algorithm::gather, Algorithm::ulysses, Algorithm::hybrid}) {
    for (const Pass pass : {Pass::forward, Pass::backward}) {
      for (const Link& link : {Link{1}, Link{2}, Link{4}, Link{4, true}}) {
        for (const GatherLaunch launch : {GatherLaunch::slices, GatherLaunch::on_arrival}) {
          for (const RankPlan& plan : plans(algorithm, pass, launch)) {
            SCOPED_TRACE(fmt::format("{} ranks a host", link.ranks_per_host));
            ASSERT_NO_FATAL_FAILURE(expect_samples(plan, link));
          }
        }
      }
    }
  }
}

TEST(StepSamples, GiveTheFirstOfWhatArrivesTheWaitForAll) {
  const RankPlan plan = plans(Algorithm::gather, Pass::forward, GatherLaunch::on_arrival)[1];
  const auto traits = Link{4}.traits(plan);
  const Schedule schedule = attn::make_schedule(plan, traits);
  ASSERT_TRUE(attn::waits_inside(schedule));
  const auto samples = attn::item_samples(plan, traits, schedule, one_a_step(schedule));
  int longer = 0;
  for (const ItemSample& s : samples) {
    const Item& it = plan.items[static_cast<std::size_t>(s.item)];
    if (it.kind == ItemKind::transfer && !s.by_flag && s.end_s - s.begin_s > 1) ++longer;
  }
  EXPECT_EQ(longer, 1);
  const RankPlan slices = plans(Algorithm::gather, Pass::forward, GatherLaunch::slices)[1];
  EXPECT_FALSE(attn::waits_inside(attn::make_schedule(slices, Link{4}.traits(slices))));
}

}  // namespace
}  // namespace annulus::test
