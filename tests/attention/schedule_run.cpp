#include "tests/attention/schedule_run.h"

#include "attention/execute/arrivals.h"
#include "comm/device/rounds.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

namespace annulus::test {
namespace {

using attn::Lane;
using attn::Step;

const Transfer& transfer_of(const RankPlan& plan, std::int32_t i) {
  return plan.transfers[static_cast<std::size_t>(i)];
}

std::size_t lane_of(const Step& step) { return static_cast<std::size_t>(step.lane); }

/// The entries of a list that a step names.
std::span<const std::int32_t> listed(const std::vector<std::int32_t>& list, const Step& step) {
  return std::span(list).subspan(static_cast<std::size_t>(step.index),
                                 static_cast<std::size_t>(step.count));
}

}  // namespace

std::vector<attn::TransferTraits> Link::traits(const RankPlan& plan) const {
  // Two links: each groups what it moves.
  std::vector<comm::RoundMember> far;
  std::vector<comm::RoundMember> moved;
  const auto moves_here = [&](const Transfer& t) {
    return t.mover == Mover::any ? t.sends == pushes : t.sends == (t.mover == Mover::sender);
  };
  for (const Transfer& t : plan.transfers) {
    const bool beside = near(plan.rank, t.peer);
    far.push_back({t.round, !beside});
    moved.push_back({t.round, beside && moves_here(t)});
  }
  const std::vector<std::int32_t> far_ends = comm::round_ends(far);
  const std::vector<std::int32_t> ends = comm::round_ends(moved);
  std::vector<attn::TransferTraits> traits;
  for (std::size_t i = 0; i < ends.size(); ++i) {
    const bool beside = near(plan.rank, plan.transfers[i].peer);
    const bool by_flag = beside && !moves_here(plan.transfers[i]);
    traits.push_back({beside ? ends[i] : far_ends[i], by_flag, beside});
  }
  return traits;
}

ScheduleRun::ScheduleRun(const std::vector<RankPlan>& ranks, const Link& link, bool one_lane)
    : link_(link) {
  for (const RankPlan& plan : ranks) {
    Rank rank;
    rank.plan = &plan;
    rank.traits = link.traits(plan);
    rank.schedule = attn::make_schedule(plan, rank.traits);
    for (const Step& s : rank.schedule.steps) {
      rank.lanes[one_lane ? 0 : lane_of(s)].push_back(s);
    }
    ranks_.push_back(std::move(rank));
  }
}

ScheduleRun::Name ScheduleRun::name_of(const Rank& rank, std::int32_t transfer) const {
  const Transfer& t = transfer_of(*rank.plan, transfer);
  const int me = rank.plan->rank;
  return t.sends ? Name(me, t.peer, t.tag) : Name(t.peer, me, t.tag);
}

std::string ScheduleRun::play() {
  for (bool moved = true; moved;) {
    moved = false;
    for (Rank& rank : ranks_) {
      for (std::size_t lane = 0; lane < 2; ++lane) {
        while (rank.at[lane] < rank.lanes[lane].size() && try_step(rank, lane)) {
          ++rank.at[lane];
          moved = true;
        }
      }
    }
  }
  for (const Rank& rank : ranks_) {
    for (std::size_t lane = 0; lane < 2; ++lane) {
      if (rank.at[lane] == rank.lanes[lane].size()) continue;
      const Step& s = rank.lanes[lane][rank.at[lane]];
      return fmt::format("rank {} hangs in lane {} at step {}: kind {} of {}", rank.plan->rank,
                         lane, rank.at[lane], static_cast<int>(s.kind), s.index);
    }
  }
  if (!raised_.empty() || !answered_.empty()) return "a flag was raised that nobody consumed";
  return {};
}

bool ScheduleRun::try_step(Rank& rank, std::size_t lane) {
  const Step& step = rank.lanes[lane][rank.at[lane]];
  switch (step.kind) {
    case Step::Kind::compute:
      return try_compute(rank, step.index);
    case Step::Kind::raise:
      for (const std::int32_t t : listed(rank.schedule.raised, step)) {
        raised_.insert(name_of(rank, t));
      }
      return true;
    case Step::Kind::sources:
      return try_sources(rank, step);
    case Step::Kind::move:
      return true;
    case Step::Kind::arrived:
      rank.arrived[step.index] = step.count;
      return true;
    case Step::Kind::departed:  // at the latest
      return rank.attended.contains(
          rank.schedule.departures[static_cast<std::size_t>(step.index)].attend);
    case Step::Kind::release:
      for (const std::int32_t t : listed(rank.schedule.arrivals, step)) {
        answered_.insert(name_of(rank, t));
      }
      return true;
    case Step::Kind::record:
      rank.events.insert(step.index);
      return true;
    case Step::Kind::wait:
      return rank.events.contains(step.index);
    case Step::Kind::await_over:
      return try_await(rank, step);
    case Step::Kind::transfer:
      return try_transfer(rank, step.index);
  }
  return false;
}

bool ScheduleRun::try_compute(Rank& rank, std::int32_t item) {
  const Item& it = rank.plan->items[static_cast<std::size_t>(item)];
  const auto all = static_cast<std::int32_t>(attn::arrivals_of(*rank.plan, it).size());
  if (all > 0 && (!rank.arrived.contains(it.payload) || rank.arrived.at(it.payload) != all)) {
    return false;
  }
  if (it.kind == ItemKind::attend) rank.attended.insert(it.payload);
  return true;
}

bool ScheduleRun::try_sources(const Rank& rank, const Step& step) {
  const auto sources = listed(rank.schedule.arrivals, step);
  const bool there = std::all_of(sources.begin(), sources.end(), [&](std::int32_t t) {
    return raised_.contains(name_of(rank, t));
  });
  if (!there) return false;
  for (const std::int32_t t : sources) raised_.erase(name_of(rank, t));
  return true;
}

bool ScheduleRun::try_transfer(Rank& rank, std::int32_t transfer) {
  if (!link_.near(rank.plan->rank, transfer_of(*rank.plan, transfer).peer)) {
    return try_round(rank, transfer);
  }
  std::vector<Name> group;
  for (std::size_t i = 0; i < rank.traits.size(); ++i) {
    if (rank.traits[i].group_end != transfer) continue;
    group.push_back(name_of(rank, static_cast<std::int32_t>(i)));
    if (!raised_.contains(group.back())) return false;  // the waits are one call
  }
  for (const Name& name : group) {
    raised_.erase(name);
    answered_.insert(name);
  }
  return true;
}

bool ScheduleRun::try_round(Rank& rank, std::int32_t end) {
  bool met = true;
  for (std::size_t i = 0; i < rank.traits.size(); ++i) {
    const auto member = static_cast<std::int32_t>(i);
    const int peer = transfer_of(*rank.plan, member).peer;
    if (rank.traits[i].group_end != end || link_.near(rank.plan->rank, peer)) continue;
    const Name name = name_of(rank, member);
    posted_.insert({rank.plan->rank, name});
    met = met && posted_.contains({peer, name});
  }
  return met;
}

bool ScheduleRun::try_await(const Rank& rank, const Step& step) {
  // Waits that are over stay over.
  for (std::int32_t i = 0; i < step.count; ++i) {
    const std::int32_t send = rank.schedule.awaited[static_cast<std::size_t>(step.index + i)];
    if (!answered_.contains(name_of(rank, send))) return false;
  }
  for (std::int32_t i = 0; i < step.count; ++i) {
    answered_.erase(name_of(rank, rank.schedule.awaited[static_cast<std::size_t>(step.index + i)]));
  }
  return true;
}

namespace {

/// Where items start and end among the steps of one rank, and what each step is known to follow.
class Clock {
 public:
  Clock(const RankPlan& plan, const std::vector<attn::TransferTraits>& traits,
        const attn::Schedule& schedule)
      : plan_(plan), traits_(traits) {
    std::array<std::int32_t, 2> known[2] = {{-1, -1}, {-1, -1}};  // by lane
    std::map<std::int32_t, std::array<std::int32_t, 2>> events;
    for (const Step& s : schedule.steps) {
      auto& mine = known[lane_of(s)];
      ++mine[lane_of(s)];
      if (s.kind == Step::Kind::record) events[s.index] = mine;
      if (s.kind == Step::Kind::wait) {
        const std::size_t other = 1 - lane_of(s);
        mine[other] = std::max(mine[other], events.at(s.index)[other]);
      }
      const At at{lane_of(s), mine};
      if (s.kind == Step::Kind::compute) computed_[s.index] = at;
      if (s.kind == Step::Kind::transfer || s.kind == Step::Kind::move) started_[s.index] = at;
      if (s.kind == Step::Kind::raise) {
        for (const std::int32_t t : listed(schedule.raised, s)) started_[t] = at;
      }
      if (s.kind == Step::Kind::sources) {
        for (const std::int32_t t : listed(schedule.arrivals, s)) sources_[t] = at;
      }
      if (s.kind == Step::Kind::departed) {
        departed_.emplace_back(schedule.departures[static_cast<std::size_t>(s.index)], at);
      }
      if (s.kind == Step::Kind::arrived) arrived_[{s.index, s.count}] = at;
      if (s.kind != Step::Kind::await_over) continue;
      for (const std::int32_t t : listed(schedule.awaited, s)) freed_[t] = at;
    }
  }

  /// Transfer item `first` brings keys that attend item `second` takes as they arrive, and this is
  /// safe: the kernel starts when the source is there, and is told after the copy.
  bool told(std::int32_t first, std::int32_t second) const {
    const Item& attend = plan_.items[static_cast<std::size_t>(second)];
    const std::int32_t t = plan_.items[static_cast<std::size_t>(first)].payload;
    const auto arrivals = attn::arrivals_of(plan_, attend);
    const auto at = std::find(arrivals.begin(), arrivals.end(), t);
    if (plan_.items[static_cast<std::size_t>(first)].kind != ItemKind::transfer ||
        at == arrivals.end() || !sources_.contains(t)) {
      return false;
    }
    const auto count = static_cast<std::int32_t>(at - arrivals.begin()) + 1;
    const At& moved = started_.at(t);
    const auto told = arrived_.lower_bound({attend.payload, count});  // with others of its round
    if (told == arrived_.end() || told->first.first != attend.payload) return false;
    const At& counted = told->second;
    const At& source = sources_.at(t);
    return follows(moved, source) && follows(counted, moved) &&
           follows(computed_.at(second), source);
  }

  /// Transfer item `second` sends heads of attend item `first` that its flag was held for.
  bool said(std::int32_t first, std::int32_t second) const {
    const attn::HeadSpan heads =
        attn::heads_sent(plan_, plan_.items[static_cast<std::size_t>(second)],
                         plan_.items[static_cast<std::size_t>(first)]);
    return heads.attend >= 0 && std::ranges::any_of(departed_, [&](const auto& d) {
             return d.first == heads && follows(start_of(second), d.second);
           });
  }

  bool before(std::int32_t first, std::int32_t second) const {
    return follows(start_of(second), end_of(first));
  }

 private:
  /// A step: its lane, and the last step of each lane that is over when it ends.
  struct At {
    std::size_t lane = 0;
    std::array<std::int32_t, 2> known{};
  };

  static bool follows(const At& start, const At& end) {
    return &start != &end && start.known[end.lane] >= end.known[end.lane];
  }

  const At& start_of(std::int32_t i) const {
    const Item& item = plan_.items[static_cast<std::size_t>(i)];
    if (item.kind != ItemKind::transfer) return computed_.at(i);
    return started_.at(traits_[static_cast<std::size_t>(item.payload)].group_end);
  }
  const At& end_of(std::int32_t i) const {
    const Item& item = plan_.items[static_cast<std::size_t>(i)];
    const bool flag =
        item.kind == ItemKind::transfer && traits_[static_cast<std::size_t>(item.payload)].by_flag;
    return flag ? freed_.at(item.payload) : start_of(i);
  }

  const RankPlan& plan_;
  const std::vector<attn::TransferTraits>& traits_;
  std::map<std::int32_t, At> computed_;  ///< by item
  std::map<std::int32_t, At> started_;   ///< by transfer
  std::map<std::int32_t, At> freed_;     ///< by transfer
  std::map<std::int32_t, At> sources_;   ///< by transfer
  std::vector<std::pair<attn::HeadSpan, At>> departed_;
  std::map<std::pair<std::int32_t, std::int32_t>, At> arrived_;  ///< by attend and count
};

}  // namespace

std::string ScheduleRun::unordered_edge() const {
  for (const Rank& rank : ranks_) {
    const Clock clock(*rank.plan, rank.traits, rank.schedule);
    for (std::size_t i = 0; i < rank.plan->items.size(); ++i) {
      const auto item = static_cast<std::int32_t>(i);
      for (const std::int32_t w : rank.plan->waits(rank.plan->items[i])) {
        if (clock.before(w, item) || clock.told(w, item) || clock.said(w, item)) continue;
        return fmt::format("[{}] may start before [{}] is over", describe(*rank.plan, item),
                           describe(*rank.plan, w));
      }
    }
  }
  return {};
}

void ScheduleRun::swap_launches(std::size_t rank) {
  std::vector<Step*> launches;
  for (Step& s : ranks_[rank].lanes[1]) {
    if (s.kind == Step::Kind::transfer) launches.push_back(&s);
  }
  std::swap(launches.at(0)->index, launches.at(1)->index);
}

}  // namespace annulus::test
