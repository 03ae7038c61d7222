#include "tests/attention/symbolic.h"

#include <fmt/format.h>

#include <utility>

namespace annulus::test {
namespace {

constexpr std::size_t kMaxFaults = 8;

std::uint64_t mixed(std::uint64_t state, std::int64_t value) {
  std::uint64_t z = state + 0x9e3779b97f4a7c15U + static_cast<std::uint64_t>(value);
  z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31U);
}

bool of_keys(Role role) {
  return role == Role::k || role == Role::v || role == Role::dk || role == Role::dv;
}

bool is_result(Role role, Pass pass) {
  if (pass == Pass::forward) return role == Role::out || role == Role::lse;
  return role == Role::dq || role == Role::dk || role == Role::dv;
}

std::vector<std::int64_t> positions_of(const std::vector<TokenRange>& ranges) {
  std::vector<std::int64_t> positions;
  for (const TokenRange& range : ranges) {
    for (std::int64_t i = 0; i < range.count; ++i) positions.push_back(range.position(i));
  }
  return positions;
}

}  // namespace

std::uint64_t id_of(int what, std::int64_t batch, std::int64_t position, std::int64_t head,
                    std::int64_t dim) {
  return mixed(mixed(mixed(mixed(mixed(7, what), batch), position), head), dim) | 2U;
}

std::uint64_t part_of(Role result, std::int64_t batch, std::int64_t head, std::int64_t query,
                      std::int64_t key) {
  return mixed(mixed(mixed(mixed(mixed(11, static_cast<int>(result)), batch), head), query), key);
}

SymbolicRun::SymbolicRun(const Plan& plan, const std::vector<RankPlan>& ranks, std::uint64_t seed)
    : plan_(plan), ranks_(ranks), mask_(problem()), random_(seed), eager_(random_.one_in(2)) {
  counts_.resize(static_cast<std::size_t>(problem().heads * mask_.seq() * mask_.seq_kv()), 0);
  for (const RankPlan& r : ranks_) {
    first_.push_back(nodes_);
    nodes_ += r.items.size();
    row_positions_.push_back(positions_of(r.rows));
    auto& slots = slots_.emplace_back();
    for (const PlanSlot& s : r.slots) {
      slots.emplace_back(static_cast<std::size_t>(problem().batch * s.tokens * s.heads * s.dim));
    }
    fill_inputs(r.rank);
  }
}

void SymbolicRun::fill_inputs(int rank) {
  const RankPlan& r = rank_plan(rank);
  for (std::size_t i = 0; i < r.slots.size(); ++i) {
    const PlanSlot& s = r.slots[i];
    if (s.space != Space::caller || is_result(s.role, r.pass)) continue;
    const Shard& shard =
        of_keys(s.role) ? plan_.sharding().shard_kv(rank) : plan_.sharding().shard(rank);
    const std::vector<std::int64_t> positions = positions_of(shard);
    for (std::int64_t b = 0; b < problem().batch; ++b) {
      for (std::int64_t t = 0; t < s.tokens; ++t) {
        const std::int64_t at_position = positions.at(static_cast<std::size_t>(t));
        for (std::int64_t h = 0; h < s.heads; ++h) {
          for (std::int64_t d = 0; d < s.dim; ++d) {
            at(rank, static_cast<std::int32_t>(i), b, t, h, d) = {
                id_of(static_cast<int>(s.role), b, at_position, h, d), 0, at_position, 0};
          }
        }
      }
    }
  }
}

std::size_t SymbolicRun::index(const Node& node) const {
  return first_[static_cast<std::size_t>(node.rank)] + static_cast<std::size_t>(node.item) +
         static_cast<std::size_t>(node.call) * nodes_;
}

void SymbolicRun::connect() {
  missing_.assign(2 * nodes_, 0);
  dependents_.assign(2 * nodes_, {});
  for (const int call : {0, 1}) {
    for (const RankPlan& r : ranks_) {
      for (std::size_t i = 0; i < r.items.size(); ++i) {
        const Node node{call, r.rank, static_cast<std::int32_t>(i)};
        const auto wait = [&](int of_call, std::int32_t item) {
          dependents_[index({of_call, r.rank, item})].push_back(node);
          ++missing_[index(node)];
        };
        for (const std::int32_t w : r.waits(r.items[i])) wait(call, w);
        if (call == 1) {
          for (const std::int32_t w : r.waits_previous(r.items[i])) wait(0, w);
        }
        if (missing_[index(node)] == 0) ready_.push_back(node);
      }
    }
  }
}

std::vector<std::string> SymbolicRun::run() {
  connect();
  while (!ready_.empty() && faults_.size() < kMaxFaults) {
    const auto last = static_cast<std::int64_t>(ready_.size()) - 1;
    std::swap(ready_[static_cast<std::size_t>(random_.between(0, last))], ready_.back());
    const Node node = ready_.back();
    ready_.pop_back();
    visit(node);
  }
  if (faults_.empty() && finished_ != 2 * nodes_) {
    faults_.push_back(fmt::format("stuck: {} of {} items ran", finished_, 2 * nodes_));
  }
  if (faults_.empty()) {
    for (const RankPlan& r : ranks_) check_results(r.rank);
  }
  return faults_;
}

void SymbolicRun::finish(const Node& node) {
  ++finished_;
  for (const Node& next : dependents_[index(node)]) {
    if (--missing_[index(next)] == 0) ready_.push_back(next);
  }
}

void SymbolicRun::visit(const Node& node) {
  const RankPlan& r = rank_plan(node.rank);
  const Item& item = r.items[static_cast<std::size_t>(node.item)];
  const auto payload = static_cast<std::size_t>(item.payload);
  running_ = node.item;
  switch (item.kind) {
    case ItemKind::transfer:
      visit_transfer(node, r.transfers[payload]);
      return;
    case ItemKind::attend:
      attend(node, r.attends[payload]);
      break;
    case ItemKind::merge:
      merge(node.rank, r.merges[payload]);
      break;
    case ItemKind::reduce:
      reduce(node.rank, r.reduces[payload]);
      break;
    case ItemKind::prepare:
      prepare(node.rank, r.prepares[payload]);
      break;
  }
  finish(node);
}

void SymbolicRun::visit_transfer(const Node& node, const Transfer& t) {
  const RankPlan& r = rank_plan(node.rank);
  const PlanSlot& slot = r.slots[static_cast<std::size_t>(t.block.slot)];
  const bool in_place = t.mover == (t.sends ? Mover::sender : Mover::receiver);
  const bool may_be_caller = !plan_.request().options.stage_caller || in_place;
  if (slot.space != Space::symmetric && !(may_be_caller && slot.space == Space::caller)) {
    fault(node.rank, fmt::format("{} touches a slot that may not travel", describe(r, node.item)));
  }
  const Signal signal = t.sends ? Signal(node.call, node.rank, t.peer, t.tag)
                                : Signal(node.call, t.peer, node.rank, t.tag);
  const auto peer = posted_.find(signal);
  if (t.sends) {
    if (eager_ || peer != posted_.end()) in_flight_[signal] = load(node.rank, t.block);
    if (eager_) finish(node);
    if (peer == posted_.end()) {
      if (!eager_) posted_[signal] = node;
      return;
    }
  } else if (!eager_ && peer != posted_.end()) {
    const RankPlan& sender = rank_plan(peer->second.rank);
    const Item& send = sender.items[static_cast<std::size_t>(peer->second.item)];
    running_ = peer->second.item;
    in_flight_[signal] =
        load(sender.rank, sender.transfers[static_cast<std::size_t>(send.payload)].block);
  } else if (in_flight_.count(signal) == 0) {
    posted_[signal] = node;
    return;
  }
  const Node receive = t.sends ? peer->second : node;
  const RankPlan& to = rank_plan(receive.rank);
  const Transfer& end = to.transfers[static_cast<std::size_t>(
      to.items[static_cast<std::size_t>(receive.item)].payload)];
  running_ = receive.item;
  check_needed(receive, end, in_flight_[signal]);
  store(receive.rank, end.block, in_flight_[signal]);
  in_flight_.erase(signal);
  if (!eager_ || t.sends) finish(peer->second);
  if (!eager_ || !t.sends) finish(node);
  if (peer != posted_.end()) posted_.erase(peer);
}

std::uint64_t SymbolicRun::expected_sum(Role role, std::int64_t batch, std::int64_t position,
                                        std::int64_t head) const {
  std::uint64_t sum = 0;
  if (!of_keys(role)) {
    for (std::int64_t j = 0; j < mask_.seq_kv(); ++j) {
      if (mask_.sees(position, j)) sum += part_of(role, batch, head, position, j);
    }
    return sum;
  }
  for (std::int64_t h = head * group(); h < (head + 1) * group(); ++h) {
    for (std::int64_t i = 0; i < mask_.seq(); ++i) {
      if (mask_.sees(i, position)) sum += part_of(role, batch, h, i, position);
    }
  }
  return sum;
}

void SymbolicRun::check_results(int rank) {
  const RankPlan& r = rank_plan(rank);
  int found = 0;
  for (std::size_t i = 0; i < r.slots.size(); ++i) {
    const PlanSlot& s = r.slots[i];
    if (s.space != Space::caller || !is_result(s.role, r.pass)) continue;
    ++found;
    check_result(rank, s, static_cast<std::int32_t>(i));
  }
  if (found != (r.pass == Pass::forward ? 2 : 3)) fault(rank, "a result has no slot, or two");
}

void SymbolicRun::check_result(int rank, const PlanSlot& s, std::int32_t slot) {
  const Sharding& sharding = plan_.sharding();
  const std::vector<std::int64_t> positions =
      positions_of(of_keys(s.role) ? sharding.shard_kv(rank) : sharding.shard(rank));
  if (static_cast<std::int64_t>(positions.size()) != s.tokens) {
    fault(rank,
          fmt::format("slot {} has {} tokens, the shard {}", s.name, s.tokens, positions.size()));
    return;
  }
  const int rounded = s.dtype == DType::f32 ? 0 : 1;
  for (std::int64_t b = 0; b < problem().batch; ++b) {
    for (std::int64_t t = 0; t < s.tokens; ++t) {
      const std::int64_t position = positions[static_cast<std::size_t>(t)];
      for (std::int64_t h = 0; h < s.heads; ++h) {
        const std::uint64_t sum = expected_sum(s.role, b, position, h);
        for (std::int64_t d = 0; d < s.dim; ++d) {
          const Element& e = at(rank, slot, b, t, h, d);
          const bool named = e.id == id_of(static_cast<int>(s.role), b, position, h, d) ||
                             (e.id == kZeroId && sum == 0);
          if (named && e.sum == sum && e.rounded == rounded) continue;
          fault(rank, fmt::format("result {} batch {} position {} head {} dim {}: {}", s.name, b,
                                  position, h, d,
                                  e.id == 0      ? "was never written"
                                  : !named       ? "holds another element"
                                  : e.sum != sum ? "lacks a part or has one twice"
                                                 : "was not rounded once"));
          return;
        }
      }
    }
  }
}

void SymbolicRun::fault(int rank, const std::string& text) {
  if (faults_.size() < kMaxFaults) faults_.push_back(fmt::format("rank {}: {}", rank, text));
}

}  // namespace annulus::test
