// What a call on GPUs enqueues that costs its host in a graph too: copies, and memory operations,
// of which neighbours on one stream are one call (DeviceLink::flush). Kernels cost a replay
// nothing. The figures stand in docs/notes/01-gpu-kernels-and-executor.md.

#include "attention/execute/schedule.h"
#include "attention/plan/gather_slices.h"
#include "tests/attention/schedule_run.h"

#include <annulus/plan.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace annulus {
namespace {

using attn::Lane;
using attn::Step;

struct Nodes {
  int transfers = 0;
  int kernels = 0;  ///< items: an attend has several
  int copies = 0;
  int batches = 0;  ///< of memory operations
  int events = 0;   ///< records and waits

  int costly() const { return copies + batches; }
};

/// Copies of a transfer that moves data here, as comm/peer/stream_ops has them: one for each head
/// where heads do not lie side by side at both ends.
int copies_of(const std::vector<RankPlan>& ranks, const RankPlan& plan, const Transfer& t) {
  const auto dense = [](const RankPlan& of, const Block& b) {
    return b.dims == of.slots[static_cast<std::size_t>(b.slot)].dim;
  };
  const RankPlan& peer = ranks[static_cast<std::size_t>(t.peer)];
  const auto other = std::ranges::find_if(peer.transfers, [&](const Transfer& o) {
    return o.peer == plan.rank && o.tag == t.tag && o.sends != t.sends;
  });
  return dense(plan, t.block) && dense(peer, other->block) ? 1 : t.block.heads;
}

Nodes nodes_of(const std::vector<RankPlan>& ranks, std::size_t rank) {
  const RankPlan& plan = ranks[rank];
  const auto traits = test::Link{static_cast<int>(ranks.size())}.traits(plan);
  const attn::Schedule schedule = attn::make_schedule(plan, traits);
  Nodes n;
  n.transfers = static_cast<int>(plan.transfers.size());
  int held = -1;  // lane of operations that are held back
  const auto operate = [&](Lane lane) {
    if (held != static_cast<int>(lane)) ++n.batches;
    held = static_cast<int>(lane);
  };
  const auto copy = [&](std::int32_t t) {
    held = -1;
    n.copies += copies_of(ranks, plan, plan.transfers[static_cast<std::size_t>(t)]);
  };
  for (const Step& s : schedule.steps) {
    switch (s.kind) {
      case Step::Kind::compute:
        ++n.kernels;
        held = -1;
        break;
      case Step::Kind::record:
      case Step::Kind::wait:
        ++n.events;
        held = -1;
        break;
      case Step::Kind::transfer:
        operate(s.lane);
        for (std::size_t t = 0; t < traits.size(); ++t) {
          if (traits[t].group_end == s.index) copy(static_cast<std::int32_t>(t));
        }
        operate(s.lane);
        break;
      case Step::Kind::move:
        copy(s.index);
        break;
      default:
        operate(s.lane);
    }
  }
  return n;
}

std::vector<RankPlan> plans(Algorithm algorithm, std::int64_t tokens, int world, Pass pass,
                            bool in_place) {
  PlanRequest r;
  r.problem.seq = tokens * world;
  r.problem.heads = 32;
  r.problem.heads_kv = 8;
  r.problem.head_dim = 128;
  r.problem.dtype = DType::bf16;
  r.algorithm = algorithm;
  r.pass = pass;
  const bool one_group = algorithm == Algorithm::ulysses;
  r.mesh = {.ring = one_group ? 1 : world, .ulysses = one_group ? world : 1};
  r.options.stage_caller = true;
  r.options.give_in_place = in_place;
  r.options.land_in_place = in_place;
  r.options.gather_launch = GatherLaunch::on_arrival;
  const Plan plan = make_plan(r);
  std::vector<RankPlan> ranks;
  for (int i = 0; i < world; ++i) ranks.push_back(plan.rank(i));
  return ranks;
}

struct Expected {
  Algorithm algorithm;
  std::int64_t tokens;  ///< a GPU
  int world;
  Pass pass;
  int copies, batches;
  bool in_place = false;  ///< PlanOptions::give_in_place, land_in_place
};

TEST(ScheduleNodes, AreAsFewAsTheNotesSay) {
  using enum Algorithm;
  using enum Pass;
  const std::vector<Expected> all{
      {gather, 1024, 4, forward, 6, 7},
      {gather, 2048, 4, forward, 9, 8},
      {gather, 4096, 4, forward, 9, 8},
      {gather, 8192, 4, forward, 6, 7},
      {gather, 16384, 4, forward, 6, 7},
      {ring, 16384, 4, forward, 3, 8},
      {ulysses, 16384, 4, forward, 12, 10},
      {gather, 1024, 8, forward, 14, 11},
      {gather, 2048, 8, forward, 21, 12},
      {gather, 4096, 8, forward, 21, 12},
      {gather, 8192, 8, forward, 14, 11},
      {gather, 16384, 8, forward, 14, 11},
      {ring, 16384, 8, forward, 7, 16},
      {ulysses, 16384, 8, forward, 28, 10},
      {gather, 1024, 4, backward, 6, 8},
      {gather, 2048, 4, backward, 12, 10},
      {gather, 4096, 4, backward, 24, 14},
      {gather, 8192, 4, backward, 48, 22},
      {gather, 16384, 4, backward, 48, 22},
      {ring, 16384, 4, backward, 7, 17},
      {ulysses, 16384, 4, backward, 21, 19},
      {gather, 1024, 8, backward, 14, 12},
      {gather, 2048, 8, backward, 28, 14},
      {gather, 4096, 8, backward, 56, 18},
      {gather, 8192, 8, backward, 112, 26},
      {gather, 16384, 8, backward, 112, 26},
      {ring, 16384, 8, backward, 15, 33},
      {ulysses, 16384, 8, backward, 49, 19},
      {ulysses, 16384, 4, forward, 15, 9, true},
      {ulysses, 16384, 8, forward, 35, 9, true},
      {ulysses, 16384, 4, backward, 27, 16, true},
      {ulysses, 16384, 8, backward, 63, 16, true},
  };
  for (const Expected& e : all) {
    const Nodes n = nodes_of(plans(e.algorithm, e.tokens, e.world, e.pass, e.in_place), 1);
    SCOPED_TRACE(fmt::format("{} {} tokens, {} GPUs, {}: {} transfers, {} items, {} events",
                             name_of(e.algorithm), e.tokens, e.world, name_of(e.pass), n.transfers,
                             n.kernels, n.events));
    fmt::print("{} {} {} {}: {} transfers, {} items, {} copies, {} batches, {} events\n",
               name_of(e.algorithm), e.tokens, e.world, name_of(e.pass), n.transfers, n.kernels,
               n.copies, n.batches, n.events);
    EXPECT_EQ(n.copies, e.copies);
    EXPECT_EQ(n.batches, e.batches);
  }
}

std::vector<std::int32_t> sizes(const std::vector<attn::HeadRange>& slices) {
  std::vector<std::int32_t> list;
  std::int32_t end = 0;
  for (const attn::HeadRange& s : slices) {
    EXPECT_EQ(s.first, end);
    end = s.end();
    list.push_back(s.count);
  }
  return list;
}

TEST(GatherSlices, GrowAsFastAsTheKernelHidesTheirCopies) {
  using Sizes = std::vector<std::int32_t>;
  // 32:8 heads, causal, 8 GPUs: half of a shard's rows, of four heads, see a key.
  EXPECT_EQ(sizes(attn::growing_slices(8, 8, 1024)), (Sizes{8}));
  EXPECT_EQ(sizes(attn::growing_slices(8, 4, 2048)), (Sizes{4, 4}));
  EXPECT_EQ(sizes(attn::growing_slices(8, 2, 4096)), (Sizes{2, 2, 4}));
  EXPECT_EQ(sizes(attn::growing_slices(8, 1, 8192)), (Sizes{1, 3, 4}));
  EXPECT_EQ(sizes(attn::growing_slices(8, 1, 16384)), (Sizes{1, 7}));
  // Rows that take no longer than their keys take to arrive hide nothing more than an equal slice.
  EXPECT_EQ(sizes(attn::growing_slices(7, 2, 1600)), (Sizes{2, 2, 2, 1}));
  EXPECT_EQ(sizes(attn::growing_slices(5, 1, 0)), (Sizes{1, 1, 1, 1, 1}));
  EXPECT_EQ(sizes(attn::growing_slices(32, 1, 4800)), (Sizes{1, 2, 5, 12, 12}));
  EXPECT_EQ(sizes(attn::growing_slices(0, 1, 1)), (Sizes{0}));
  EXPECT_EQ(sizes(attn::equal_slices(8, 3)), (Sizes{2, 3, 3}));
}

}  // namespace
}  // namespace annulus
