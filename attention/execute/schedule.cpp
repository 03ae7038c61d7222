#include "attention/execute/schedule.h"

#include "attention/execute/arrival_groups.h"
#include "attention/execute/schedule_events.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
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

std::size_t index(Lane lane) { return static_cast<std::size_t>(lane); }

class Compiler {
 public:
  Compiler(const RankPlan& plan, const std::vector<TransferTraits>& traits)
      : plan_(plan),
        traits_(traits),
        over_(plan.items.size()),
        freed_(plan.transfers.size()),
        attend_of_(plan.transfers.size(), -1) {
    for (auto& [i, group] : arrival_groups(plan, traits)) {
      for (const auto* list : {&group.transfers, &group.sends}) {
        if (!group.told) break;
        for (const std::int32_t t : *list) attend_of_[static_cast<std::size_t>(t)] = i;
      }
      arrivals_[i] = {std::move(group), false, {}};
    }
  }

  Schedule compile() {
    for (std::int32_t i = 0; i < static_cast<std::int32_t>(plan_.items.size()); ++i) {
      if (is_enqueued(i)) continue;
      const bool moves = item(i).kind == ItemKind::transfer && !by_flag(item(i));
      if (item(i).kind == ItemKind::transfer && attend_of(i) >= 0) {
        add_arrivals(attend_of(i), i);
        continue;
      }
      if (moves) raise_early(i, false);
      if (!is_enqueued(i)) add(i);
      if (moves) raise_behind(i);
    }
    // All of the copy lane: what gives sources back is no item, and a capture wants every stream
    // joined.
    await_mark({Lane::copy, counts_[index(Lane::copy)] - 1}, Lane::compute);
    std::vector<std::int32_t> all(plan_.items.size());
    std::iota(all.begin(), all.end(), 0);
    await(all, Lane::compute);
    number_events(out_);
    return std::move(out_);
  }

 private:
  const Item& item(std::int32_t i) const { return plan_.items[static_cast<std::size_t>(i)]; }
  const TransferTraits& traits(std::int32_t t) const {
    return traits_[static_cast<std::size_t>(t)];
  }
  const Transfer& transfer(std::int32_t t) const {
    return plan_.transfers[static_cast<std::size_t>(t)];
  }
  std::int32_t closer(std::int32_t t) const { return traits(t).closer < 0 ? t : traits(t).closer; }
  std::int32_t round_of(std::int32_t i) const { return transfer(item(i).payload).round; }
  bool by_flag(const Item& it) const {
    return it.kind == ItemKind::transfer && traits(it.payload).by_flag;
  }

  /// Enqueued, alone or in a group that has started.
  bool is_enqueued(std::int32_t i) const { return over_[static_cast<std::size_t>(i)].at >= 0; }

  /// All that it waits for is enqueued.
  bool may_start(const Item& it) const {
    return std::ranges::all_of(plan_.waits(it), [&](std::int32_t w) { return is_enqueued(w); });
  }

  /// The attend item that takes transfer item i while it arrives; -1: none.
  std::int32_t attend_of(std::int32_t i) const {
    return attend_of_[static_cast<std::size_t>(item(i).payload)];
  }

  /// All that attend item i takes as it arrives, from item `from` on: copies one after the other,
  /// and the counter tells how far they are. Their owners get their flags first and last, in one
  /// go.
  void add_arrivals(std::int32_t i, std::int32_t from) {
    Arrivals& a = arrivals_.at(i);
    a.started = true;
    std::vector<std::int32_t> items;
    for (std::int32_t j = 0; j < i; ++j) {
      if (item(j).kind == ItemKind::transfer && attend_of(j) == i) items.push_back(j);
    }
    for (const std::int32_t j : items) {
      for (const std::int32_t w : plan_.waits(item(j))) {
        if (!is_enqueued(w)) add(w);
      }
    }
    if (!a.pulled) return add_pushes(i, items);
    raise_early(from, true);
    for (const std::int32_t j : items) await(plan_.waits(item(j)), Lane::copy);
    const auto first = static_cast<std::int32_t>(out_.arrivals.size());
    const auto count = static_cast<std::int32_t>(a.transfers.size());
    out_.arrivals.insert(out_.arrivals.end(), a.transfers.begin(), a.transfers.end());
    a.sources = emit(Step::Kind::sources, Lane::copy, first, count);
    std::size_t told = 0;
    for (std::size_t n = 0; n < items.size(); ++n) {
      emit(Step::Kind::move, Lane::copy, item(items[n]).payload);
      if (!tells(items, n)) continue;
      const Mark mark =
          emit(Step::Kind::arrived, Lane::copy, item(i).payload, static_cast<std::int32_t>(n) + 1);
      for (; told <= n; ++told) over_[static_cast<std::size_t>(items[told])] = mark;
    }
    emit(Step::Kind::release, Lane::copy, first, count);
  }

  /// The same where others push: flags for them, then a round at a time what this rank pushes and
  /// what comes in. The copy lane begins with the call: nothing that is computed is sent.
  void add_pushes(std::int32_t i, const std::vector<std::int32_t>& items) {
    Arrivals& a = arrivals_.at(i);
    out_.early = true;
    for (const std::int32_t j : items) await(plan_.waits(item(j)), Lane::copy);
    for (const std::int32_t j : items)
      if (by_flag(item(j)) && !is_enqueued(j)) raise(j, Lane::copy);
    raise_early(items.front(), true);
    auto next = static_cast<std::int32_t>(out_.arrivals.size());
    out_.arrivals.insert(out_.arrivals.end(), a.sends.begin(), a.sends.end());
    if (!a.sends.empty()) {
      a.sources =
          emit(Step::Kind::sources, Lane::copy, next, static_cast<std::int32_t>(a.sends.size()));
    }
    const bool all_begun = receivers_of(plan_, a.sends) == plan_.world - 1;
    std::int32_t over = 0;  // of a.transfers
    for (auto at = items.begin(); at != items.end();) {
      const bool first = at == items.begin();
      const auto end = std::find_if(at, items.end(),
                                    [&](std::int32_t j) { return round_of(j) != round_of(*at); });
      push_round({at, end}, next);
      const Mark mark = take_round({at, end}, item(i).payload, first, over);
      if (first && !all_begun) a.sources = mark;
      at = end;
    }
  }

  /// Sends of a round; the receiver is told as soon as all that is for it is over. `next`: their
  /// place in Schedule::arrivals.
  void push_round(std::span<const std::int32_t> items, std::int32_t& next) {
    std::vector<std::int32_t> sends;
    std::ranges::copy_if(items, std::back_inserter(sends),
                         [&](auto j) { return !by_flag(item(j)); });
    const auto peer = [&](std::size_t n) { return transfer(item(sends[n]).payload).peer; };
    std::size_t first = 0;  // of those for one receiver
    for (std::size_t n = 0; n < sends.size(); ++n) {
      emit(Step::Kind::move, Lane::copy, item(sends[n]).payload);
      if (n + 1 < sends.size() && peer(n + 1) == peer(n)) continue;
      const auto count = static_cast<std::int32_t>(n + 1 - first);
      await_begin();
      const Mark mark = emit(Step::Kind::release, Lane::copy, next, count);
      for (; first <= n; ++first) over_[static_cast<std::size_t>(sends[first])] = mark;
      next += count;
    }
  }

  /// Before the first flag behind a copy, so that it splits no call of memory operations.
  void await_begin() {
    if (!std::exchange(began_, true)) emit(Step::Kind::begun, Lane::copy, 0);
  }

  /// What others pushed in a round is there, and the counter of `attend` says so: in the first
  /// round sender by sender, then once. Returns when it did.
  Mark take_round(std::span<const std::int32_t> items, std::int32_t attend, bool first,
                  std::int32_t& over) {
    std::vector<std::int32_t> receives;
    for (const std::int32_t j : items) {
      if (by_flag(item(j))) receives.push_back(item(j).payload);
    }
    Mark mark{};
    for (std::size_t n = 0; n < receives.size(); ++n) {
      ++over;
      const bool last = n + 1 == receives.size();
      if (!last && closer(receives[n + 1]) == closer(receives[n])) continue;
      hear(closer(receives[n]), Lane::copy);
      if (!first && !last) continue;
      await_begin();
      mark = emit(Step::Kind::arrived, Lane::copy, attend, over);
    }
    return mark;
  }

  /// Does the counter say when the n-th of these transfers is over? Each of the first round, for
  /// which the kernel waits most; of later ones, which move under what came before, the last.
  bool tells(const std::vector<std::int32_t>& items, std::size_t n) const {
    return n + 1 == items.size() || round_of(items[n]) == round_of(items[0]) ||
           round_of(items[n]) != round_of(items[n + 1]);
  }

  /// Receives by flag, which say that their destination is free, are raised before this rank moves
  /// anything from item `from` on, if all that they wait for is enqueued; with `sends`, other flags
  /// too.
  void raise_early(std::int32_t from, bool sends) {
    for (auto i = from; i < static_cast<std::int32_t>(plan_.items.size()); ++i) {
      const Item& it = item(i);
      if (is_enqueued(i) || !by_flag(it)) continue;
      if (!sends && transfer(it.payload).sends) continue;
      if (may_start(it)) add(i);
    }
  }

  /// What came goes on: flags that wait for what the copy lane moves alone are raised as soon as
  /// item `from` is enqueued, in one go with those that it raises itself.
  void raise_behind(std::int32_t from) {
    for (auto i = from + 1; i < static_cast<std::int32_t>(plan_.items.size()); ++i) {
      if (is_enqueued(i) || !by_flag(item(i))) continue;
      if (may_start(item(i)) && lane_of(item(i)) == Lane::copy) add(i);
    }
  }

  /// A flag is raised where its source was made ready; what moves goes on the copy lane.
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
    const HeadSpan heads = heads_to_await(it);
    const Lane lane = heads.attend >= 0 ? Lane::copy : lane_of(it);
    if (heads.attend >= 0) {
      await_heads(it, heads);
    } else {
      await_needed(i, lane);
    }
    if (it.kind != ItemKind::transfer) {
      over_[static_cast<std::size_t>(i)] = emit(Step::Kind::compute, lane, i);
      return;
    }
    const std::int32_t end = traits(it.payload).group_end;
    if (by_flag(it)) {
      raise(i, lane);
    } else if (end == it.payload) {
      const Mark mark = emit(Step::Kind::transfer, lane, it.payload);
      for (const std::int32_t member : waiting_[end])
        over_[static_cast<std::size_t>(member)] = mark;
      over_[static_cast<std::size_t>(i)] = mark;
    } else {
      waiting_[end].push_back(i);
    }
  }

  void raise(std::int32_t i, Lane lane) {
    out_.raised.push_back(item(i).payload);
    over_[static_cast<std::size_t>(i)] =
        emit(Step::Kind::raise, lane, static_cast<std::int32_t>(out_.raised.size()) - 1);
  }

  /// What a flag waits for instead of the end of the attend that it waits for.
  HeadSpan heads_to_await(const Item& it) const {
    if (!by_flag(it) || !traits(it.payload).beside_kernels) return {};
    return heads_sent(plan_, it);
  }

  /// Holds the copy lane until all that transfer item `it` waits for is over, but of the attend
  /// only these heads.
  void await_heads(const Item& it, const HeadSpan& heads) {
    std::vector<std::int32_t> others;
    for (const std::int32_t w : plan_.waits(it)) {
      if (heads_sent(plan_, it, item(w)) != heads) others.push_back(w);
    }
    await(others, Lane::copy);
    if (!out_.departures.empty() && out_.departures.back() == heads) return;
    out_.departures.push_back(heads);
    emit(Step::Kind::departed, Lane::copy, static_cast<std::int32_t>(out_.departures.size()) - 1);
  }

  /// Holds `lane` until item i may start.
  void await_needed(std::int32_t i, Lane lane) {
    const auto known = arrivals_.find(i);
    if (known == arrivals_.end()) return await(plan_.waits(item(i)), lane);
    const Arrivals& a = known->second;
    if (a.told && !a.started) add_arrivals(i, i);  // all its flags were raised early
    std::vector<std::int32_t> others;
    for (const std::int32_t w : plan_.waits(item(i))) {
      if (item(w).kind != ItemKind::transfer || attend_of(w) != i) others.push_back(w);
    }
    await(others, lane);
    if (a.told) return await_mark(a.sources, lane);
    emit(Step::Kind::arrived, lane, item(i).payload, static_cast<std::int32_t>(a.transfers.size()));
  }

  /// Holds `lane` until these items are over. First for the other lane, so that waits for flags
  /// stand next to what the lane itself waits for.
  void await(std::span<const std::int32_t> items, Lane lane) {
    std::int32_t latest = seen_[index(lane)];
    for (const std::int32_t i : items) {
      if (is_unheard(i)) continue;
      const Mark mark = over(i, lane);
      if (mark.lane != lane) latest = std::max(latest, mark.at);
    }
    await_mark({other(lane), latest}, lane);
    for (const std::int32_t i : items) over(i, lane);
  }

  /// It raised a flag, and no lane has waited for the other end yet.
  bool is_unheard(std::int32_t i) const {
    return is_enqueued(i) && by_flag(item(i)) &&
           freed_[static_cast<std::size_t>(closer(item(i).payload))].at < 0;
  }

  /// Holds `lane` until this step of the other one is over.
  void await_mark(Mark mark, Lane lane) {
    std::int32_t& seen = seen_[index(lane)];
    if (mark.lane == lane || mark.at <= seen) return;
    seen = mark.at;
    emit(Step::Kind::wait, lane, mark.at);
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
    return hear(closer(it.payload), lane);
  }

  /// The other end of transfer t, by flag, says that it is over: on `lane`, if nobody waited yet.
  Mark hear(std::int32_t t, Lane lane) {
    Mark& freed = freed_[static_cast<std::size_t>(t)];
    if (freed.at < 0) {
      out_.awaited.push_back(t);
      const auto entry = static_cast<std::int32_t>(out_.awaited.size()) - 1;
      freed = emit(Step::Kind::await_over, lane, entry);
    }
    return freed;
  }

  /// Flags that follow each other on a lane are one step.
  static bool joins(Step::Kind kind) {
    return kind == Step::Kind::await_over || kind == Step::Kind::raise;
  }

  Mark emit(Step::Kind kind, Lane lane, std::int32_t what, std::int32_t count = 1) {
    out_.copies = out_.copies || lane == Lane::copy;
    Step* last = out_.steps.empty() ? nullptr : &out_.steps.back();
    if (joins(kind) && last != nullptr && last->kind == kind && last->lane == lane &&
        last->index + last->count == what) {
      ++last->count;
      return {lane, counts_[index(lane)] - 1};
    }
    out_.steps.push_back({kind, lane, what, count});
    return {lane, counts_[index(lane)]++};
  }

  /// What an attend takes as it arrives.
  struct Arrivals : ArrivalGroup {
    bool started = false;
    Mark sources{};  ///< nobody else is needed any more: what is left only takes time
  };

  const RankPlan& plan_;
  const std::vector<TransferTraits>& traits_;
  std::vector<Mark> over_;                       ///< by item: for flags, when it was raised
  std::vector<Mark> freed_;                      ///< by transfer
  std::vector<std::int32_t> attend_of_;          ///< by transfer: attend item that takes it, or -1
  std::map<std::int32_t, Arrivals> arrivals_{};  ///< by attend item
  std::map<std::int32_t, std::vector<std::int32_t>> waiting_;  ///< group end -> its members so far
  std::array<std::int32_t, 2> counts_{};                       ///< steps of each lane
  std::array<std::int32_t, 2> seen_{-1, -1};                   ///< of the other lane
  bool began_ = false;  ///< the copy lane is behind what the first launch clears
  Schedule out_;
};

}  // namespace

Schedule make_schedule(const RankPlan& plan, const std::vector<TransferTraits>& traits) {
  return Compiler(plan, traits).compile();
}

}  // namespace annulus::attn
