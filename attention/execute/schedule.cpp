#include "attention/execute/schedule.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <span>
#include <utility>

namespace annulus::attn {
namespace {

/// When something is over: lane, and how many steps of that lane come first.
struct Mark {
  Lane lane = Lane::compute;
  std::int32_t at = -1;  ///< -1: not enqueued yet
};

Lane other(Lane lane) { return lane == Lane::compute ? Lane::copy : Lane::compute; }
std::size_t index(Lane lane) { return static_cast<std::size_t>(lane); }

class Compiler {
 public:
  Compiler(const RankPlan& plan, const std::vector<TransferTraits>& traits)
      : plan_(plan), traits_(traits), over_(plan.items.size()), freed_(plan.transfers.size()) {}

  Schedule compile() {
    for (std::int32_t i = 0; i < static_cast<std::int32_t>(plan_.items.size()); ++i) {
      if (item(i).kind == ItemKind::transfer && !by_flag(item(i))) raise_free_destinations(i);
      if (!is_enqueued(i)) add(i);
    }
    std::vector<std::int32_t> all(plan_.items.size());
    std::iota(all.begin(), all.end(), 0);
    await(all, Lane::compute);
    number_events();
    return std::move(out_);
  }

 private:
  const Item& item(std::int32_t i) const { return plan_.items[static_cast<std::size_t>(i)]; }
  const TransferTraits& traits(std::int32_t t) const {
    return traits_[static_cast<std::size_t>(t)];
  }
  bool by_flag(const Item& it) const {
    return it.kind == ItemKind::transfer && traits(it.payload).by_flag;
  }

  /// Enqueued, alone or in a group that has started.
  bool is_enqueued(std::int32_t i) const { return over_[static_cast<std::size_t>(i)].at >= 0; }

  /// Receives that only say that their destination is free say so before this rank moves anything
  /// from here on, if all that they wait for is enqueued.
  void raise_free_destinations(std::int32_t from) {
    for (auto i = from; i < static_cast<std::int32_t>(plan_.items.size()); ++i) {
      const Item& it = item(i);
      if (is_enqueued(i) || !by_flag(it)) continue;
      if (plan_.transfers[static_cast<std::size_t>(it.payload)].sends) continue;
      const auto waits = plan_.waits(it);
      const auto enqueued = [&](std::int32_t w) { return is_enqueued(w); };
      if (std::all_of(waits.begin(), waits.end(), enqueued)) add(i);
    }
  }

  /// A flag is raised where its source was made ready; all else that moves goes on the copy lane.
  Lane lane_of(const Item& it) const {
    if (it.kind != ItemKind::transfer) return Lane::compute;
    if (!by_flag(it)) return Lane::copy;
    const auto waits = plan_.waits(it);
    const bool copied = !waits.empty() && std::all_of(waits.begin(), waits.end(), [&](auto w) {
      return over_[static_cast<std::size_t>(w)].lane == Lane::copy && !by_flag(item(w));
    });
    return copied ? Lane::copy : Lane::compute;
  }

  void add(std::int32_t i) {
    const Item& it = item(i);
    const Lane lane = lane_of(it);
    await(plan_.waits(it), lane);
    if (it.kind != ItemKind::transfer) {
      over_[static_cast<std::size_t>(i)] = emit(Step::Kind::compute, lane, i);
      return;
    }
    const std::int32_t end = traits(it.payload).group_end;
    if (end == it.payload) {
      const Mark mark = emit(Step::Kind::transfer, lane, it.payload);
      for (const std::int32_t member : waiting_[end])
        over_[static_cast<std::size_t>(member)] = mark;
      over_[static_cast<std::size_t>(i)] = mark;
    } else {
      waiting_[end].push_back(i);
    }
  }

  /// Holds `lane` until these items are over.
  void await(std::span<const std::int32_t> items, Lane lane) {
    std::int32_t& seen = seen_[index(lane)];
    std::int32_t latest = seen;
    for (const std::int32_t i : items) {
      const Mark mark = over(i, lane);
      if (mark.lane != lane) latest = std::max(latest, mark.at);
    }
    if (latest == seen) return;
    seen = latest;
    emit(Step::Kind::wait, lane, latest);
  }

  /// When item i is over; one that raised a flag is after a wait for the other end, on `lane` if
  /// nobody waited yet.
  Mark over(std::int32_t i, Lane lane) {
    const Item& it = item(i);
    const Mark mark = over_[static_cast<std::size_t>(i)];
    if (mark.at < 0) {
      throw Unsupported(
          fmt::format("{}: an item waits for it before its group starts", describe(plan_, i)));
    }
    if (!by_flag(it)) return mark;
    Mark& freed = freed_[static_cast<std::size_t>(it.payload)];
    if (freed.at < 0) {
      out_.awaited.push_back(it.payload);
      const auto entry = static_cast<std::int32_t>(out_.awaited.size()) - 1;
      freed = emit(Step::Kind::await_over, lane, entry);
    }
    return freed;
  }

  Mark emit(Step::Kind kind, Lane lane, std::int32_t what) {
    out_.copies = out_.copies || lane == Lane::copy;
    Step* last = out_.steps.empty() ? nullptr : &out_.steps.back();
    if (kind == Step::Kind::await_over && last != nullptr && last->kind == kind &&
        last->lane == lane && last->index + last->count == what) {
      ++last->count;
      return {lane, counts_[index(lane)] - 1};
    }
    out_.steps.push_back({kind, lane, what, 1});
    return {lane, counts_[index(lane)]++};
  }

  /// Waits named marks so far: they become events, recorded right after the mark.
  void number_events() {
    std::array<std::map<std::int32_t, std::int32_t>, 2> events;  // by lane: mark -> event
    for (const Step& s : out_.steps) {
      if (s.kind == Step::Kind::wait) events[index(other(s.lane))].try_emplace(s.index, 0);
    }
    for (auto& lane : events) {
      for (auto& [mark, event] : lane) event = out_.events++;
    }
    std::vector<Step> steps;
    std::array<std::int32_t, 2> counts{};
    for (Step s : out_.steps) {
      if (s.kind == Step::Kind::wait) s.index = events[index(other(s.lane))].at(s.index);
      steps.push_back(s);
      const auto event = events[index(s.lane)].find(counts[index(s.lane)]++);
      if (event != events[index(s.lane)].end()) {
        steps.push_back({Step::Kind::record, s.lane, event->second, 1});
      }
    }
    out_.steps = std::move(steps);
  }

  const RankPlan& plan_;
  const std::vector<TransferTraits>& traits_;
  std::vector<Mark> over_;   ///< by item: for flags, when it was raised
  std::vector<Mark> freed_;  ///< by transfer
  std::map<std::int32_t, std::vector<std::int32_t>> waiting_;  ///< group end -> its members so far
  std::array<std::int32_t, 2> counts_{};                       ///< steps of each lane
  std::array<std::int32_t, 2> seen_{-1, -1};                   ///< of the other lane
  Schedule out_;
};

}  // namespace

Schedule make_schedule(const RankPlan& plan, const std::vector<TransferTraits>& traits) {
  return Compiler(plan, traits).compile();
}

}  // namespace annulus::attn
