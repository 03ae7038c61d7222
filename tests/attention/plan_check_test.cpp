// The checker finds what was broken on purpose.

#include <annulus/plan.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <tuple>

namespace annulus {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

using Ranks = std::vector<RankPlan>;

Ranks ranks_of(const PlanRequest& request) {
  const Plan plan = make_plan(request);
  Ranks ranks;
  for (int r = 0; r < plan.world(); ++r) ranks.push_back(plan.rank(r));
  return ranks;
}

PlanRequest request_of(Algorithm algorithm, MeshShape mesh, Pass pass) {
  PlanRequest r;
  r.problem.seq = 24;
  r.problem.heads = 4;
  r.problem.heads_kv = 2;
  r.problem.head_dim = 2;
  r.problem.dtype = DType::bf16;
  r.algorithm = algorithm;
  r.mesh = mesh;
  r.pass = pass;
  return r;
}

std::vector<PlanRequest> small_plans() {
  std::vector<PlanRequest> plans;
  for (const Pass pass : {Pass::forward, Pass::backward}) {
    plans.push_back(request_of(Algorithm::ring, {.ring = 3}, pass));
    plans.push_back(request_of(Algorithm::ring, {.ring = 4}, pass));
    plans.back().options.resume = false;
    plans.push_back(request_of(Algorithm::ring, {.ring = 3}, pass));
    plans.back().options.backward_moves = BackwardMoves::queries;
    plans.push_back(request_of(Algorithm::gather, {.ring = 3}, pass));
    plans.push_back(request_of(Algorithm::ulysses, {.ring = 1, .ulysses = 3}, pass));
    plans.push_back(request_of(Algorithm::ulysses, {.ring = 1, .ulysses = 2}, pass));
    plans.back().problem.heads_kv = 4;
    plans.back().options.ulysses_slices = 2;
    plans.back().options.stage_caller = true;
    plans.push_back(plans.back());
    plans.back().options.give_in_place = true;
    plans.back().options.land_in_place = true;
    plans.push_back(request_of(Algorithm::hybrid, {.ring = 2, .ulysses = 2}, pass));
    plans.push_back(request_of(Algorithm::hybrid, {.ring = 2, .ulysses = 2}, pass));
    plans.back().options.outer = Algorithm::gather;
    plans.back().options.stage_caller = true;
  }
  return plans;
}

std::vector<std::int32_t*> edges_of(RankPlan& plan, Slice slice) {
  std::vector<std::int32_t*> edges;
  for (std::int32_t i = 0; i < slice.count; ++i) {
    edges.push_back(&plan.edges[static_cast<std::size_t>(slice.begin + i)]);
  }
  return edges;
}

/// A second opinion on order: walks from the end of one item to the start of another along waits
/// and data that has to arrive. A node is (call, rank, item, end?).
class Reach {
 public:
  explicit Reach(const Ranks& ranks) : ranks_(ranks) {
    for (const RankPlan& r : ranks) {
      for (std::size_t i = 0; i < r.items.size(); ++i) {
        const Item& item = r.items[i];
        if (item.kind != ItemKind::transfer) continue;
        const Transfer& t = r.transfers[static_cast<std::size_t>(item.payload)];
        if (!t.sends) receives_[{t.peer, r.rank, t.tag}] = static_cast<std::int32_t>(i);
      }
    }
  }

  bool ordered(int rank, std::int32_t from, int from_call, std::int32_t to, int to_call) const {
    std::deque<Node> open{{from_call, rank, from, true}};
    std::map<Node, bool> seen;
    while (!open.empty()) {
      const Node node = open.front();
      open.pop_front();
      if (node == Node{to_call, rank, to, false}) return true;
      if (seen[node]) continue;
      seen[node] = true;
      for (const Node& next : after(node)) open.push_back(next);
    }
    return false;
  }

 private:
  using Node = std::tuple<int, int, std::int32_t, bool>;

  std::vector<Node> after(const Node& node) const {
    const auto [call, rank, item, ended] = node;
    const RankPlan& r = ranks_[static_cast<std::size_t>(rank)];
    std::vector<Node> next;
    if (!ended) {
      next.push_back({call, rank, item, true});
      const Item& at = r.items[static_cast<std::size_t>(item)];
      if (at.kind == ItemKind::transfer) {
        const Transfer& t = r.transfers[static_cast<std::size_t>(at.payload)];
        if (t.sends) next.push_back({call, t.peer, receives_.at({rank, t.peer, t.tag}), true});
      }
      return next;
    }
    for (std::size_t i = 0; i < r.items.size(); ++i) {
      const auto id = static_cast<std::int32_t>(i);
      const auto same = r.waits(r.items[i]);
      const auto previous = r.waits_previous(r.items[i]);
      if (std::count(same.begin(), same.end(), item)) next.push_back({call, rank, id, false});
      if (call == 0 && std::count(previous.begin(), previous.end(), item)) {
        next.push_back({1, rank, id, false});
      }
    }
    return next;
  }

  const Ranks& ranks_;
  std::map<std::tuple<int, int, std::int32_t>, std::int32_t> receives_;
};

/// An edge is taken out by making the item wait for another of its waits, or for nothing.
struct Removed {
  Removed(Ranks ranks_in, std::size_t rank, std::size_t item, bool previous, std::int32_t which)
      : ranks(std::move(ranks_in)) {
    RankPlan& plan = ranks[rank];
    Slice& slice = previous ? plan.items[item].waits_previous : plan.items[item].waits;
    std::swap(*edges_of(plan, slice)[static_cast<std::size_t>(which)],
              *edges_of(plan, slice).back());
    --slice.count;
  }
  Ranks ranks;
};

struct Count {
  int edges = 0;
  int caught = 0;
  int implied = 0;
};

/// Takes out each edge in turn: found, unless the two items stay ordered by others.
Count take_out_each_edge(const Ranks& ranks, bool previous) {
  Count count;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    for (std::size_t i = 0; i < ranks[r].items.size(); ++i) {
      const Item& item = ranks[r].items[i];
      const Slice slice = previous ? item.waits_previous : item.waits;
      for (std::int32_t e = 0; e < slice.count; ++e) {
        const std::int32_t from = ranks[r].edges[static_cast<std::size_t>(slice.begin + e)];
        const Removed broken(ranks, r, i, previous, e);
        const auto to = static_cast<std::int32_t>(i);
        const bool implied =
            Reach(broken.ranks).ordered(static_cast<int>(r), from, 0, to, previous ? 1 : 0);
        const auto faults = check_plan(broken.ranks);
        ++count.edges;
        count.implied += implied ? 1 : 0;
        count.caught += faults.empty() ? 0 : 1;
        EXPECT_EQ(faults.empty(), implied)
            << describe(ranks[r], to) << " no longer waits for " << describe(ranks[r], from)
            << (previous ? " of the call before" : "");
      }
    }
  }
  return count;
}

TEST(PlanChecker, FindsEveryMissingEdgeThatOthersDoNotImply) {
  for (const bool previous : {false, true}) {
    Count sum;
    for (const PlanRequest& request : small_plans()) {
      SCOPED_TRACE(fmt::format("{} {}", name_of(request.algorithm), name_of(request.pass)));
      const Ranks ranks = ranks_of(request);
      ASSERT_THAT(check_plan(ranks), IsEmpty());
      const Count count = take_out_each_edge(ranks, previous);
      sum.edges += count.edges;
      sum.caught += count.caught;
      sum.implied += count.implied;
    }
    fmt::print("{}: {} edges, {} caught, {} implied by others\n",
               previous ? "waits_previous" : "waits", sum.edges, sum.caught, sum.implied);
    EXPECT_GT(sum.caught, 0);
  }
}

std::size_t item_of(const RankPlan& plan, ItemKind kind, bool sends = false) {
  for (std::size_t i = 0; i < plan.items.size(); ++i) {
    if (plan.items[i].kind != kind) continue;
    if (kind != ItemKind::transfer ||
        plan.transfers[static_cast<std::size_t>(plan.items[i].payload)].sends == sends) {
      return i;
    }
  }
  return plan.items.size();
}

Transfer& first_transfer(RankPlan& plan, bool sends) {
  const std::size_t i = item_of(plan, ItemKind::transfer, sends);
  return plan.transfers[static_cast<std::size_t>(plan.items[i].payload)];
}

Access& first_access(RankPlan& plan, std::size_t item) {
  return plan.accesses[static_cast<std::size_t>(plan.items[item].accesses.begin)];
}

Ranks ring_ranks() { return ranks_of(request_of(Algorithm::ring, {.ring = 3}, Pass::forward)); }

TEST(PlanChecker, FindsAReceiveThatLandsOnWhatIsBeingRead) {
  Ranks ranks = ring_ranks();
  const std::size_t receive = item_of(ranks[1], ItemKind::transfer, false);
  const std::size_t send = item_of(ranks[1], ItemKind::transfer, true);
  const Block block = first_access(ranks[1], send).block;
  first_access(ranks[1], receive).block = block;
  first_transfer(ranks[1], false).block = block;
  EXPECT_THAT(check_plan(ranks), Contains(HasSubstr("hazard")));
}

TEST(PlanChecker, FindsATransferThatTouchesAnotherPlaceThanItSays) {
  Ranks ranks = ring_ranks();
  first_transfer(ranks[1], false).block.token += 1;
  EXPECT_THAT(check_plan(ranks), Contains(HasSubstr("another block")));
}

TEST(PlanChecker, FindsATransferWithOneEnd) {
  Ranks ranks = ring_ranks();
  const std::size_t item = item_of(ranks[2], ItemKind::transfer, true);
  ranks[2].items[item].kind = ItemKind::prepare;
  EXPECT_THAT(check_plan(ranks), Contains(HasSubstr("only one end")));
}

TEST(PlanChecker, FindsEndsThatDisagree) {
  Ranks bytes = ring_ranks();
  first_transfer(bytes[0], true).bytes += 4;
  EXPECT_THAT(check_plan(bytes), Contains(HasSubstr("bytes leave")));
  Ranks tag = ring_ranks();
  first_transfer(tag[0], true).tag += 1;
  EXPECT_THAT(check_plan(tag), Contains(HasSubstr("used twice")));
  Ranks fresh = ring_ranks();
  first_transfer(fresh[0], true).tag = 77;
  EXPECT_THAT(check_plan(fresh), Contains(HasSubstr("only one end")));
  Ranks peer = ring_ranks();
  first_transfer(peer[0], true).peer = 9;
  EXPECT_THAT(check_plan(peer), Contains(HasSubstr("peer 9")));
}

TEST(PlanChecker, FindsEndsThatLieInAnotherOrder) {
  PlanRequest request = request_of(Algorithm::ulysses, {.ring = 1, .ulysses = 2}, Pass::forward);
  request.options.stage_caller = true;
  Ranks ranks = ranks_of(request);
  const Transfer& t = first_transfer(ranks[0], false);
  bool& heads_first = ranks[0].slots[static_cast<std::size_t>(t.block.slot)].heads_first;
  ASSERT_TRUE(heads_first);
  heads_first = false;
  EXPECT_THAT(check_plan(ranks), Contains(HasSubstr("one end lies heads first")));
}

TEST(PlanChecker, FindsMoversThatCannotReachTheOtherEnd) {
  PlanRequest request = request_of(Algorithm::ulysses, {.ring = 1, .ulysses = 2}, Pass::forward);
  request.options.stage_caller = true;
  request.options.give_in_place = true;
  Ranks ranks = ranks_of(request);
  ASSERT_THAT(check_plan(ranks), testing::IsEmpty());
  Transfer& send = first_transfer(ranks[0], true);
  ASSERT_EQ(send.mover, Mover::sender);
  send.mover = Mover::receiver;
  EXPECT_THAT(check_plan(ranks), Contains(HasSubstr("different movers")));
  for (Transfer& t : ranks[1].transfers) {
    if (!t.sends && t.tag == send.tag) t.mover = Mover::receiver;
  }
  EXPECT_THAT(check_plan(ranks),
              Contains(HasSubstr("rank 1 moves it and cannot address k of rank 0")));
}

TEST(PlanChecker, FindsCallersTensorsThatNobodySaysWhoMoves) {
  PlanRequest request = request_of(Algorithm::ulysses, {.ring = 1, .ulysses = 2}, Pass::forward);
  Ranks ranks = ranks_of(request);
  ASSERT_THAT(check_plan(ranks), testing::IsEmpty());
  EXPECT_THAT(check_plan(ranks, true),
              Contains(HasSubstr("touches the caller's k, which this rank has to move")));
}

TEST(PlanChecker, FindsRanksThatWaitForEachOther) {
  Ranks ranks = ranks_of(request_of(Algorithm::ring, {.ring = 2}, Pass::forward));
  for (RankPlan& plan : ranks) {
    // Receive, then send: on both ranks.
    std::size_t send = item_of(plan, ItemKind::transfer, true);
    std::size_t receive = item_of(plan, ItemKind::transfer, false);
    if (receive > send) {
      std::swap(plan.items[send], plan.items[receive]);
      std::swap(send, receive);
    }
    plan.items[send].waits = {static_cast<std::int32_t>(plan.edges.size()), 1};
    plan.edges.push_back(static_cast<std::int32_t>(receive));
  }
  EXPECT_THAT(check_plan(ranks), Contains(HasSubstr("deadlock")));
}

TEST(PlanChecker, FindsRoundsThatCannotBeOneLaunch) {
  Ranks one_end = ring_ranks();
  one_end[0].transfers[0].round += 1;
  EXPECT_THAT(check_plan(one_end), Contains(HasSubstr("arrives in round")));
  Ranks awaited = ring_ranks();
  Ranks falling = ring_ranks();
  for (RankPlan& plan : awaited) {
    for (Transfer& t : plan.transfers) t.round = 0;
  }
  EXPECT_THAT(check_plan(awaited), Contains(HasSubstr("and a wait for round 0")));
  for (RankPlan& plan : falling) {
    for (Transfer& t : plan.transfers) t.round = -t.round;
  }
  EXPECT_THAT(check_plan(falling), Contains(HasSubstr("is of round")));
}

TEST(PlanChecker, FindsWaitsThatPointNowhere) {
  Ranks later = ring_ranks();
  *edges_of(later[0], later[0].items.back().waits)[0] =
      static_cast<std::int32_t>(later[0].items.size());
  EXPECT_THAT(check_plan(later), Contains(HasSubstr("waits for item")));
  Ranks previous = ring_ranks();
  for (Item& item : previous[0].items) {
    if (item.waits_previous.count == 0) continue;
    *edges_of(previous[0], item.waits_previous)[0] = 1000;
  }
  EXPECT_THAT(check_plan(previous), Contains(HasSubstr("waits for item 1000")));
}

TEST(PlanChecker, FindsBlocksOutsideTheirSlots) {
  Ranks ranks = ring_ranks();
  const std::size_t attend = item_of(ranks[0], ItemKind::attend);
  first_access(ranks[0], attend).block.heads += 1;
  EXPECT_THAT(check_plan(ranks), Contains(HasSubstr("leaves slot")));
  Ranks missing = ring_ranks();
  first_access(missing[0], attend).block.slot = 99;
  EXPECT_THAT(check_plan(missing), Contains(HasSubstr("slot 99")));
}

TEST(PlanChecker, FindsOverlappingSlots) {
  Ranks ranks = ranks_of(request_of(Algorithm::ring, {.ring = 3}, Pass::backward));
  for (std::size_t i = ranks[0].slots.size(); i-- > 0;) {
    if (ranks[0].slots[i].space == Space::caller) continue;
    ranks[0].slots[i].offset -= 256;
    break;
  }
  EXPECT_THAT(check_plan(ranks), Contains(HasSubstr("overlaps")));
  Ranks small = ring_ranks();
  small[0].arena_bytes -= 256;
  EXPECT_THAT(check_plan(small), Contains(HasSubstr("arena has")));
}

TEST(PlanChecker, StopsAfterFiftyFaults) {
  Ranks ranks = ranks_of(request_of(Algorithm::ulysses, {.ring = 1, .ulysses = 8}, Pass::forward));
  for (RankPlan& plan : ranks) {
    for (Transfer& t : plan.transfers) t.bytes += t.sends ? 1 : 0;
  }
  EXPECT_EQ(check_plan(ranks).size(), 50U);
}

}  // namespace
}  // namespace annulus
