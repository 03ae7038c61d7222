// Schedules of all algorithms, layouts, worlds and links: each can be made, every edge of the plan
// is kept by stream order and events, and the ranks' streams end when they run together.

#include "attention/execute/schedule.h"
#include "tests/attention/schedule_run.h"

#include <annulus/plan.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

namespace annulus {
namespace {

using test::Link;
using test::ScheduleRun;

struct Case {
  PlanRequest request;
  std::string words;
};

std::vector<Problem> problems() {
  Problem even;
  even.seq = 96;
  even.heads = 8;
  even.heads_kv = 4;
  even.head_dim = 2;
  even.dtype = DType::bf16;
  Problem odd = even;  // shared key/value heads, ranks without heads, documents
  odd.seq = 61;
  odd.heads = 5;
  odd.heads_kv = 1;
  odd.mask = Mask::documents({20, 30, 11});
  Problem full = even;
  full.heads_kv = 8;
  full.dtype = DType::f32;
  full.mask = Mask::full();
  return {even, odd, full};
}

std::vector<MeshShape> meshes(Algorithm algorithm, int world) {
  if (algorithm == Algorithm::ulysses) return {{.ring = 1, .ulysses = world}};
  if (algorithm != Algorithm::hybrid) return {{.ring = world}};
  std::vector<MeshShape> shapes;
  for (int u = 2; u < world; ++u) {
    if (world % u == 0) shapes.push_back({.ring = world / u, .ulysses = u});
  }
  return shapes;
}

/// What an algorithm can be told.
struct Variant {
  Algorithm outer = Algorithm::ring;
  GatherLaunch launch = GatherLaunch::slices;
  int ulysses_slices = 1;
  BackwardMoves moves = BackwardMoves::keys;
  bool gives = false;  ///< PlanOptions::give_in_place, land_in_place
  bool lands = false;
};

std::vector<Variant> variants(Algorithm algorithm) {
  using enum GatherLaunch;
  if (algorithm == Algorithm::ulysses) {
    return {{},
            {.ulysses_slices = 2},
            {.ulysses_slices = 3},
            {.gives = true, .lands = true},
            {.ulysses_slices = 3, .gives = true, .lands = true},
            {.ulysses_slices = 2, .gives = true},
            {.ulysses_slices = 2, .lands = true}};
  }
  if (algorithm == Algorithm::gather) {
    return {
        {Algorithm::ring, slices}, {Algorithm::ring, on_arrival}, {Algorithm::ring, in_position}};
  }
  const Variant queries{.moves = BackwardMoves::queries};
  if (algorithm != Algorithm::hybrid) return {{}, queries};
  return {{Algorithm::ring, slices},
          queries,
          {Algorithm::gather, slices},
          {Algorithm::gather, on_arrival},
          {.gives = true, .lands = true},
          {.moves = BackwardMoves::queries, .gives = true, .lands = true},
          {.outer = Algorithm::gather, .launch = on_arrival, .gives = true, .lands = true}};
}

/// Calls fn(plans of all ranks) for every combination.
template <typename Fn>
void for_every_plan(int world, Fn fn) {
  for (const Problem& problem : problems()) {
    for (const Algorithm algorithm :
         {Algorithm::ring, Algorithm::gather, Algorithm::ulysses, Algorithm::hybrid}) {
      for (const Layout& layout :
           {Layout::contiguous(), Layout::zigzag(), Layout::striped(), Layout::balanced()}) {
        for (const MeshShape& mesh : meshes(algorithm, world)) {
          for (const Variant& variant : variants(algorithm)) {
            for (const Pass pass : {Pass::forward, Pass::backward}) {
              PlanRequest r{problem, layout, algorithm, mesh, pass, {}};
              r.options.outer = variant.outer;
              r.options.gather_launch = variant.launch;
              r.options.ulysses_slices = variant.ulysses_slices;
              r.options.backward_moves = variant.moves;
              r.options.stage_caller = true;
              r.options.give_in_place = variant.gives;
              r.options.land_in_place = variant.lands;
              SCOPED_TRACE(fmt::format(
                  "{} {} outer {} launch {} slices {} moves {} in place {} {} mesh {}x{} layout {} "
                  "mask {} heads {}",
                  name_of(algorithm), name_of(pass), name_of(variant.outer),
                  static_cast<int>(variant.launch), variant.ulysses_slices, name_of(variant.moves),
                  variant.gives, variant.lands, mesh.ring, mesh.ulysses, layout.name(),
                  problem.mask.name(), problem.heads));
              const Plan plan = make_plan(r);
              std::vector<RankPlan> ranks;
              for (int i = 0; i < world; ++i) ranks.push_back(plan.rank(i));
              ASSERT_NO_FATAL_FAILURE(fn(ranks));
            }
          }
        }
      }
    }
  }
}

class Schedules : public testing::TestWithParam<int> {};

TEST_P(Schedules, EndOnEveryLink) {
  for_every_plan(GetParam(), [](const std::vector<RankPlan>& ranks) {
    const int world = static_cast<int>(ranks.size());
    // Hosts of one rank: all goes in rounds. One host: nothing does.
    for (const int per_host : {1, 2, 3, world}) {
      for (const bool one_lane : {false, true}) {
        for (const bool pushes : {false, true}) {
          if (pushes && per_host == 1) continue;
          SCOPED_TRACE(fmt::format("{} ranks a host, {}, {}", per_host,
                                   one_lane ? "blocking" : "lanes", pushes ? "push" : "pull"));
          ScheduleRun run(ranks, Link{per_host, pushes}, one_lane);
          ASSERT_EQ(run.play(), "");
        }
      }
    }
  });
}

TEST_P(Schedules, KeepEveryEdgeOfThePlan) {
  for_every_plan(GetParam(), [](const std::vector<RankPlan>& ranks) {
    for (const Link& link : {Link{1}, Link{2}, Link{2, true}, Link{8, true}}) {
      ScheduleRun run(ranks, link, false);
      ASSERT_EQ(run.unordered_edge(), "");
    }
  });
}

TEST_P(Schedules, LaunchEachRoundOnce) {
  for_every_plan(GetParam(), [](const std::vector<RankPlan>& ranks) {
    for (const RankPlan& plan : ranks) {
      std::set<std::int32_t> rounds;
      for (const Transfer& t : plan.transfers) rounds.insert(t.round);
      const attn::Schedule schedule = attn::make_schedule(plan, Link{1}.traits(plan));
      std::size_t launches = 0;
      for (const attn::Step& s : schedule.steps) {
        launches += s.kind == attn::Step::Kind::transfer ? 1 : 0;
      }
      ASSERT_EQ(launches, rounds.size()) << "rank " << plan.rank;
    }
  });
}

/// Else a capture of the compute lane ends with work that nobody waits for.
bool joined(const attn::Schedule& schedule) {
  using Kind = attn::Step::Kind;
  std::int32_t last = -1;  // event after the last step of the copy lane; -1: none is left open
  bool open = false;
  for (const attn::Step& s : schedule.steps) {
    if (s.kind == Kind::record && s.lane == attn::Lane::copy) {
      last = s.index;
    } else if (s.kind == Kind::wait && s.lane == attn::Lane::compute) {
      if (s.index == last) open = false;
    } else if (s.lane == attn::Lane::copy) {
      open = true;
      last = -1;
    }
  }
  return !open;
}

TEST_P(Schedules, JoinTheCopyLane) {
  for_every_plan(GetParam(), [](const std::vector<RankPlan>& ranks) {
    for (const RankPlan& plan : ranks) {
      for (const Link& link : {Link{1}, Link{2}, Link{2, true}, Link{8}, Link{8, true}}) {
        ASSERT_TRUE(joined(attn::make_schedule(plan, link.traits(plan)))) << "rank " << plan.rank;
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Worlds, Schedules, testing::Values(2, 3, 4, 5, 8),
                         [](const auto& world) { return fmt::format("of{}", world.param); });

/// Rank 1 of four, each with a GPU of one host.
attn::Schedule gathered_on_arrival(int slices) {
  PlanRequest r;
  r.problem = problems().front();
  r.algorithm = Algorithm::gather;
  r.mesh = {.ring = 4};
  r.options.stage_caller = true;
  r.options.gather_launch = GatherLaunch::on_arrival;
  r.options.gather_slices = slices;
  const RankPlan plan = make_plan(r).rank(1);
  return attn::make_schedule(plan, Link{4}.traits(plan));
}

TEST(Schedules, TellAKernelHowFarItsKeysAre) {
  const attn::Schedule schedule = gathered_on_arrival(2);
  const auto place = [&](attn::Step::Kind kind) {
    return std::ranges::find(schedule.steps, kind, &attn::Step::kind) - schedule.steps.begin();
  };
  const auto count = [&](attn::Step::Kind kind) {
    return std::ranges::count(schedule.steps, kind, &attn::Step::kind);
  };
  // Of eight chunks rank 1 holds 1 and 6 and sees 0, 2 with 5 and 3 with 4, in two slices. Its
  // flags go in one step, before it waits.
  EXPECT_EQ(schedule.arrivals.size(), 6U);
  EXPECT_EQ(count(attn::Step::Kind::move), 6);
  EXPECT_EQ(count(attn::Step::Kind::raise), 1);
  EXPECT_EQ(count(attn::Step::Kind::sources), 1);
  EXPECT_EQ(count(attn::Step::Kind::transfer), 0);
  EXPECT_LT(place(attn::Step::Kind::raise), place(attn::Step::Kind::sources));
  EXPECT_LT(place(attn::Step::Kind::sources), place(attn::Step::Kind::move));
}

TEST(Schedules, TellOfTheFirstRoundCopyByCopyAndOfOthersOnce) {
  const attn::Schedule schedule = gathered_on_arrival(3);
  std::vector<std::int32_t> told;
  int moved = 0;
  for (const attn::Step& s : schedule.steps) {
    moved += s.kind == attn::Step::Kind::move ? 1 : 0;
    if (s.kind != attn::Step::Kind::arrived) continue;
    told.push_back(s.count);
    EXPECT_EQ(s.count, moved);  // behind the copies that it counts
  }
  EXPECT_EQ(told, (std::vector<std::int32_t>{1, 2, 3, 6, 9}));
}

TEST(Schedules, RaiseFlagsBeforeAnEventThatTheyWouldSplit) {
  PlanRequest r;
  r.problem = problems().front();
  r.mesh = {.ring = 4};
  r.options.stage_caller = true;
  const RankPlan plan = make_plan(r).rank(1);
  const attn::Schedule schedule = attn::make_schedule(plan, Link{4}.traits(plan));
  int passed_on = 0;  // a chunk that came goes on: its flags are raised in one call
  for (std::size_t i = 0; i + 1 < schedule.steps.size(); ++i) {
    const attn::Step& s = schedule.steps[i];
    const attn::Step& next = schedule.steps[i + 1];
    EXPECT_FALSE(s.kind == attn::Step::Kind::record && next.kind == attn::Step::Kind::raise &&
                 s.lane == next.lane);
    if (s.kind == attn::Step::Kind::transfer && next.kind == attn::Step::Kind::raise) ++passed_on;
  }
  EXPECT_EQ(passed_on, 2);
}

TEST(Schedules, LetGradientsLeaveByHead) {
  PlanRequest r;
  r.problem = problems().front();
  r.algorithm = Algorithm::gather;
  r.pass = Pass::backward;
  r.mesh = {.ring = 4};
  r.options.stage_caller = true;
  r.options.gather_launch = GatherLaunch::on_arrival;
  r.options.gather_slices = 2;
  const RankPlan plan = make_plan(r).rank(1);
  const attn::Schedule schedule = attn::make_schedule(plan, Link{4}.traits(plan));
  // Four key/value heads in two slices, each said once; then its flags, on the copy lane.
  EXPECT_EQ(schedule.departures, (std::vector<attn::HeadSpan>{{0, 0, 2}, {0, 2, 4}}));
  int held = 0;
  for (std::size_t i = 0; i + 1 < schedule.steps.size(); ++i) {
    if (schedule.steps[i].kind != attn::Step::Kind::departed) continue;
    EXPECT_EQ(schedule.steps[i].lane, attn::Lane::copy);
    EXPECT_EQ(schedule.steps[i + 1].kind, attn::Step::Kind::raise);
    EXPECT_EQ(schedule.steps[i + 1].lane, attn::Lane::copy);
    ++held;
  }
  EXPECT_EQ(held, 2);
  // Ranks that push, or on other hosts, wait for the kernel's end.
  EXPECT_TRUE(attn::make_schedule(plan, Link{4, true}.traits(plan)).departures.empty());
  EXPECT_TRUE(attn::make_schedule(plan, Link{1}.traits(plan)).departures.empty());
}

TEST(ScheduleRun, FindsRanksThatLaunchRoundsInDifferentOrder) {
  PlanRequest r;
  r.problem = problems().front();
  r.mesh = {.ring = 3};
  r.pass = Pass::backward;
  r.options.stage_caller = true;
  const Plan plan = make_plan(r);
  std::vector<RankPlan> ranks{plan.rank(0), plan.rank(1), plan.rank(2)};
  ScheduleRun run(ranks, Link{1}, false);
  run.swap_launches(1);
  EXPECT_NE(run.play(), "");
}

}  // namespace
}  // namespace annulus
