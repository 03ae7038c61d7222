// Which steps of a recorded call share events, without a GPU.

#include "attention/execute/joined_prepares.h"
#include "attention/execute/step_notes.h"
#include "tests/attention/schedule_run.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

namespace annulus::test {
namespace {

using attn::Lane;
using attn::Schedule;
using attn::Step;
using attn::StepNote;

Schedule schedule_of(const std::vector<Step>& steps) {
  Schedule schedule;
  schedule.steps = steps;
  return schedule;
}

std::vector<std::int32_t> of(const std::vector<StepNote>& notes) {
  std::vector<std::int32_t> all;
  for (const StepNote& n : notes) all.push_back(n.of);
  return all;
}
std::vector<std::int32_t> after(const std::vector<StepNote>& notes) {
  std::vector<std::int32_t> all;
  for (const StepNote& n : notes) all.push_back(n.after);
  return all;
}

TEST(StepNotes, BeginWhereTheStepBeforeOnTheLaneEnded) {
  const Schedule s = schedule_of({{Step::Kind::compute},
                                  {Step::Kind::raise},
                                  {Step::Kind::transfer, Lane::copy},
                                  {Step::Kind::transfer, Lane::copy},
                                  {Step::Kind::record, Lane::copy},
                                  {Step::Kind::wait, Lane::compute},
                                  {Step::Kind::compute}});
  const auto notes = attn::step_notes(s, std::vector<std::int32_t>(7, 1));
  EXPECT_EQ(of(notes), (std::vector<std::int32_t>{0, 1, 2, 3, -1, -1, 6}));
  // Not behind another lane's step, nor behind a wait: what it waits for is not its own.
  EXPECT_EQ(after(notes), (std::vector<std::int32_t>{-1, 0, -1, 2, -1, -1, -1}));
}

TEST(StepNotes, JoinedStepsHaveTheEventsOfTheFirst) {
  const Schedule s = schedule_of(
      {{Step::Kind::raise}, {Step::Kind::compute}, {Step::Kind::compute}, {Step::Kind::compute}});
  const auto notes = attn::step_notes(s, {1, 2, 1, 1});
  EXPECT_EQ(of(notes), (std::vector<std::int32_t>{0, 1, 1, 3}));
  EXPECT_EQ(after(notes), (std::vector<std::int32_t>{-1, 0, 0, 1}));
}

/// With the schedules of whole plans: every step that does something is noted, by a step that has
/// events, and joined launches are some.
TEST(StepNotes, LeaveNoStepOut) {
  PlanRequest r;
  r.problem.seq = 96;
  r.problem.heads = 8;
  r.problem.heads_kv = 4;
  r.problem.head_dim = 2;
  r.algorithm = Algorithm::gather;
  r.mesh = {4, 1};
  r.options.stage_caller = true;
  r.options.gather_launch = GatherLaunch::on_arrival;
  const RankPlan plan = make_plan(r).rank(1);
  const Schedule s = attn::make_schedule(plan, Link{4}.traits(plan));
  const auto joined = attn::joined_prepares(plan, s);
  const auto notes = attn::step_notes(s, joined);
  ASSERT_EQ(notes.size(), s.steps.size());
  std::size_t own = 0;
  std::size_t noted = 0;
  for (std::size_t i = 0; i < notes.size(); ++i) {
    const bool orders =
        s.steps[i].kind == Step::Kind::record || s.steps[i].kind == Step::Kind::wait;
    EXPECT_EQ(notes[i].of == StepNote::kNone, orders);
    if (orders) continue;
    ++noted;
    const auto first = static_cast<std::size_t>(notes[i].of);
    ASSERT_LE(first, i);
    EXPECT_EQ(notes[first].of, notes[i].of);
    if (first == i) own += notes[i].after == StepNote::kNone ? 2U : 1U;
    if (notes[i].after == StepNote::kNone) continue;
    EXPECT_EQ(s.steps[static_cast<std::size_t>(notes[i].after)].lane, s.steps[i].lane);
  }
  EXPECT_LT(own, 2 * noted);  // fewer events than two a step
}

}  // namespace
}  // namespace annulus::test
