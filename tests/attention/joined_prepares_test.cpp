// Prepares that go in one launch: which they may be, and which they are.
#include "attention/execute/joined_prepares.h"
#include "tests/attention/schedule_run.h"

#include <annulus/plan.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <vector>

namespace annulus {
namespace {

using attn::Step;

PlanRequest request(Algorithm algorithm, int world, Pass pass, DType dtype) {
  PlanRequest r;
  r.problem.seq = 512 * world + 3;
  r.problem.heads = 16;
  r.problem.heads_kv = 8;
  r.problem.head_dim = 64;
  r.problem.dtype = dtype;
  r.algorithm = algorithm;
  r.pass = pass;
  const bool one_group = algorithm == Algorithm::ulysses;
  r.mesh = {.ring = one_group ? 1 : world, .ulysses = one_group ? world : 1};
  r.options.stage_caller = true;
  r.options.gather_launch = GatherLaunch::on_arrival;
  return r;
}

const Prepare* prepare_of(const RankPlan& plan, const Step& step) {
  if (step.kind != Step::Kind::compute) return nullptr;
  const Item& item = plan.items[static_cast<std::size_t>(step.index)];
  if (item.kind != ItemKind::prepare) return nullptr;
  return &plan.prepares[static_cast<std::size_t>(item.payload)];
}

/// Nothing is taken twice or left out, and nothing reads or writes what another one of its launch
/// writes.
void expect_sound(const RankPlan& plan, const attn::Schedule& schedule,
                  const std::vector<std::int32_t>& joined) {
  ASSERT_EQ(joined.size(), schedule.steps.size());
  for (std::size_t s = 0; s < joined.size(); ++s) {
    const auto count = static_cast<std::size_t>(joined[s]);
    ASSERT_GE(count, 1U);
    if (count == 1) continue;
    ASSERT_LE(count, static_cast<std::size_t>(attn::kMostJoined));
    ASSERT_LE(s + count, joined.size());
    for (std::size_t i = s; i < s + count; ++i) {
      const Prepare* p = prepare_of(plan, schedule.steps[i]);
      ASSERT_NE(p, nullptr);
      EXPECT_TRUE(p->kind == PrepareKind::copy || p->kind == PrepareKind::convert);
      EXPECT_EQ(schedule.steps[i].lane, schedule.steps[s].lane);
      EXPECT_EQ(joined[i], i == s ? joined[s] : 1);
      for (std::size_t before = s; before < i; ++before) {
        const Item& item = plan.items[static_cast<std::size_t>(schedule.steps[i].index)];
        const auto waits = plan.waits(item);
        EXPECT_EQ(std::ranges::count(waits, schedule.steps[before].index), 0);
      }
    }
  }
}

/// The sizes of launches that take more than one; the first is 0 where the first step is none, and
/// no prepare that begins the call alone.
std::vector<std::int32_t> joins(const PlanRequest& r, int rank) {
  const RankPlan plan = make_plan(r).rank(rank);
  const auto traits = test::Link{r.mesh.ring * r.mesh.ulysses}.traits(plan);
  const attn::Schedule schedule = attn::make_schedule(plan, traits);
  const std::vector<std::int32_t> joined = attn::joined_prepares(plan, schedule);
  expect_sound(plan, schedule, joined);
  std::vector<std::int32_t> sizes;
  if (joined.empty() || !attn::may_join(plan, schedule.steps.front())) sizes.push_back(0);
  std::ranges::copy_if(joined, std::back_inserter(sizes), [](auto n) { return n > 1; });
  return sizes;
}

TEST(JoinedPrepares, NeedNothingOfEachOther) {
  for (const Algorithm algorithm : {Algorithm::ring, Algorithm::gather, Algorithm::ulysses}) {
    for (const int world : {1, 2, 3, 4, 8}) {
      for (const Pass pass : {Pass::forward, Pass::backward}) {
        for (const DType dtype : {DType::f32, DType::bf16}) {
          for (int rank = 0; rank < world; ++rank)
            joins(request(algorithm, world, pass, dtype), rank);
        }
      }
    }
  }
}

TEST(JoinedPrepares, AreWhatIsPackedTakenHomeAndRounded) {
  using Sizes = std::vector<std::int32_t>;
  using enum Algorithm;
  const auto of = [](Algorithm algorithm, int world, Pass pass) {
    return joins(request(algorithm, world, pass, DType::bf16), 1 % world);
  };
  EXPECT_EQ(of(gather, 4, Pass::forward), (Sizes{2}));
  EXPECT_EQ(of(gather, 4, Pass::backward), (Sizes{0, 2, 3}));  // row sums come first
  EXPECT_EQ(of(ring, 4, Pass::forward), (Sizes{2}));
  EXPECT_EQ(of(ring, 4, Pass::backward), (Sizes{0, 2, 2}));
  EXPECT_EQ(of(ulysses, 4, Pass::forward), (Sizes{2, 3, 7}));
  EXPECT_EQ(of(ulysses, 4, Pass::backward), (Sizes{2, 3, 4, 3, 3, 6}));
  // In place: flags come first; then own parts, in and home again.
  const auto in_place = [](Pass pass) {
    PlanRequest r = request(ulysses, 4, pass, DType::bf16);
    r.options.give_in_place = true;
    r.options.land_in_place = true;
    return joins(r, 1);
  };
  EXPECT_EQ(in_place(Pass::forward), (Sizes{0, 3, 2}));
  EXPECT_EQ(in_place(Pass::backward), (Sizes{0, 4, 2, 3}));
  EXPECT_EQ(of(ring, 1, Pass::forward), (Sizes{0}));
  EXPECT_EQ(of(ring, 1, Pass::backward), (Sizes{0, 3}));
}

}  // namespace
}  // namespace annulus
