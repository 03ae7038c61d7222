// Proves a plan: both ends of every transfer match, blocks lie inside their slots, conflicting
// accesses are ordered by edges across ranks and over two consecutive calls, and nothing can wait
// for itself. It trusts what items say they touch and nothing else of the builder.

#include <annulus/plan.h>

#include "attention/plan/hazards.h"
#include "attention/plan/order.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace annulus {
namespace {

using attn::Order;

/// A plan with thousands of faults is explained by its first ones.
constexpr std::size_t kMaxFaults = 50;

class Checker {
 public:
  Checker(const std::vector<RankPlan>& ranks, bool stage_caller)
      : ranks_(ranks), stage_caller_(stage_caller) {}

  std::vector<std::string> run() {
    for (const RankPlan& plan : ranks_) check_shape(plan);
    match_transfers();
    for (const RankPlan& plan : ranks_) {
      if (stage_caller_ && faults_.empty()) check_callers(plan);
    }
    if (!faults_.empty()) return std::move(faults_);
    const Order order(ranks_, ends_);
    if (!order.acyclic()) {
      fault("deadlock: items wait for each other in a circle");
      return std::move(faults_);
    }
    for (const RankPlan& plan : ranks_) {
      check_rounds(plan);
      check_hazards(plan, order);
    }
    return std::move(faults_);
  }

 private:
  template <typename... Args>
  void fault(fmt::format_string<Args...> text, Args&&... args) {
    if (faults_.size() < kMaxFaults)
      faults_.push_back(fmt::format(text, std::forward<Args>(args)...));
  }

  void check_shape(const RankPlan& plan) {
    for (std::size_t i = 0; i < plan.items.size(); ++i) {
      const auto id = static_cast<std::int32_t>(i);
      for (const std::int32_t w : plan.waits(plan.items[i])) {
        if (w < 0 || w >= id)
          fault("{}: waits for item {}, which is not before it", describe(plan, id), w);
      }
      for (const std::int32_t w : plan.waits_previous(plan.items[i])) {
        if (w < 0 || w >= static_cast<std::int32_t>(plan.items.size()))
          fault("{}: waits for item {} of the call before, which does not exist",
                describe(plan, id), w);
      }
      for (std::int32_t a = 0; a < plan.items[i].accesses.count; ++a) {
        check_block(plan, id, access(plan, plan.items[i], a).block);
      }
      if (plan.items[i].kind == ItemKind::transfer) check_transfer(plan, id);
    }
    check_arena(plan);
  }

  /// A round may be one launch: nothing waits for it before all of it was enqueued.
  void check_rounds(const RankPlan& plan) {
    std::int32_t last = -1;
    std::int32_t awaited = -1;
    for (std::size_t i = 0; i < plan.items.size(); ++i) {
      const Item& item = plan.items[i];
      for (const std::int32_t w : plan.waits(item)) {
        if (w >= 0 && w < static_cast<std::int32_t>(i)) {
          awaited = std::max(awaited, round_of(plan, plan.items[static_cast<std::size_t>(w)]));
        }
      }
      if (item.kind != ItemKind::transfer) continue;
      const std::int32_t round = round_of(plan, item);
      if (round < last || round <= awaited) {
        fault("{}: is of round {}, after round {} and a wait for round {}",
              describe(plan, static_cast<std::int32_t>(i)), round, last, awaited);
      }
      last = std::max(last, round);
    }
  }

  /// -1: no transfer.
  static std::int32_t round_of(const RankPlan& plan, const Item& item) {
    if (item.kind != ItemKind::transfer) return -1;
    return plan.transfers[static_cast<std::size_t>(item.payload)].round;
  }

  /// A transfer moves what it says it touches: hazards are judged by accesses.
  void check_transfer(const RankPlan& plan, std::int32_t item) {
    const Item& at = plan.items[static_cast<std::size_t>(item)];
    const Transfer& t = plan.transfers[static_cast<std::size_t>(at.payload)];
    const AccessMode mode = t.sends ? AccessMode::read : AccessMode::write;
    if (at.accesses.count != 1 || access(plan, at, 0).mode != mode ||
        access(plan, at, 0).block != t.block) {
      fault("{}: moves another block than it says it touches", describe(plan, item));
    }
  }

  /// With stage_caller, an end in a caller's tensor is the one that moves the data.
  void check_callers(const RankPlan& plan) {
    for (std::size_t i = 0; i < plan.items.size(); ++i) {
      if (plan.items[i].kind != ItemKind::transfer) continue;
      const auto id = static_cast<std::int32_t>(i);
      const Transfer& t = transfer(plan.rank, id);
      const PlanSlot& slot = slot_of(plan.rank, t.block);
      if (slot.space != Space::caller || t.mover == (t.sends ? Mover::sender : Mover::receiver)) {
        continue;
      }
      fault("{}: touches the caller's {}, which this rank has to move", describe(plan, id),
            slot.name);
    }
  }

  void check_block(const RankPlan& plan, std::int32_t item, const Block& b) {
    if (b.slot < 0 || b.slot >= static_cast<std::int32_t>(plan.slots.size())) {
      fault("{}: slot {} does not exist", describe(plan, item), b.slot);
      return;
    }
    const PlanSlot& s = plan.slots[static_cast<std::size_t>(b.slot)];
    const bool inside = b.token >= 0 && b.tokens >= 0 && b.token_step >= 1 && b.head >= 0 &&
                        b.dim >= 0 && b.head + b.heads <= s.heads && b.dim + b.dims <= s.dim &&
                        (b.tokens == 0 || b.token + (b.tokens - 1) * b.token_step < s.tokens);
    if (!inside) fault("{}: leaves slot {} ({})", describe(plan, item), b.slot, s.name);
  }

  void check_arena(const RankPlan& plan) {
    std::int64_t end = 0;
    for (const PlanSlot& s : plan.slots) {
      if (s.space == Space::caller) continue;
      if (s.offset < end || s.offset % 256 != 0) {
        fault("rank {}: slot {} at {} overlaps the one before it or is misaligned", plan.rank,
              s.name, s.offset);
      }
      end = s.offset + s.bytes;
    }
    if (end > plan.arena_bytes)
      fault("rank {}: slots end at {}, arena has {}", plan.rank, end, plan.arena_bytes);
  }

  static const Access& access(const RankPlan& plan, const Item& item, std::int32_t i) {
    return plan.accesses[static_cast<std::size_t>(item.accesses.begin + i)];
  }

  /// A signal's name is (sender, receiver, tag): one writer, one waiter.
  void match_transfers() {
    std::map<std::tuple<int, int, std::int32_t>, attn::TransferEnds> known;
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      const RankPlan& plan = ranks_[r];
      for (std::size_t i = 0; i < plan.items.size(); ++i) {
        if (plan.items[i].kind != ItemKind::transfer) continue;
        const auto id = static_cast<std::int32_t>(i);
        const Transfer& t = plan.transfers[static_cast<std::size_t>(plan.items[i].payload)];
        if (t.peer < 0 || t.peer >= static_cast<int>(ranks_.size()) || t.peer == plan.rank) {
          fault("{}: peer {} cannot be", describe(plan, id), t.peer);
          continue;
        }
        const auto key =
            t.sends ? std::tuple(plan.rank, t.peer, t.tag) : std::tuple(t.peer, plan.rank, t.tag);
        std::int32_t& end = t.sends ? known[key].send : known[key].receive;
        if (end >= 0) fault("{}: tag {} is used twice", describe(plan, id), t.tag);
        end = id;
      }
    }
    for (auto& [key, ends] : known) match_ends(key, ends);
  }

  void match_ends(const std::tuple<int, int, std::int32_t>& key, attn::TransferEnds ends) {
    const auto [from, to, tag] = key;
    if (ends.send < 0 || ends.receive < 0) {
      fault("transfer {} from rank {} to rank {}: only one end exists", tag, from, to);
      return;
    }
    const auto bytes = [&](int rank, std::int32_t item) { return transfer(rank, item).bytes; };
    const auto round = [&](int rank, std::int32_t item) { return transfer(rank, item).round; };
    if (round(from, ends.send) != round(to, ends.receive)) {
      fault("transfer {} from rank {} to rank {}: leaves in round {}, arrives in round {}", tag,
            from, to, round(from, ends.send), round(to, ends.receive));
    }
    if (bytes(from, ends.send) != bytes(to, ends.receive)) {
      fault("transfer {} from rank {} to rank {}: {} bytes leave, {} arrive", tag, from, to,
            bytes(from, ends.send), bytes(to, ends.receive));
    }
    const auto heads_first = [&](int rank, std::int32_t item) {
      return slot_of(rank, transfer(rank, item).block).heads_first;
    };
    if (heads_first(from, ends.send) != heads_first(to, ends.receive)) {
      fault("transfer {} from rank {} to rank {}: one end lies heads first, the other does not",
            tag, from, to);
    }
    ends.from = from;
    ends.to = to;
    match_movers(ends, tag);
    ends_.push_back(ends);
  }

  /// Who moves the data addresses the other end, which may not be in a caller's tensor.
  void match_movers(const attn::TransferEnds& ends, std::int32_t tag) {
    const Transfer& send = transfer(ends.from, ends.send);
    const Transfer& receive = transfer(ends.to, ends.receive);
    if (send.mover != receive.mover) {
      fault("transfer {} from rank {} to rank {}: its ends name different movers", tag, ends.from,
            ends.to);
      return;
    }
    if (send.mover == Mover::any) return;
    const bool sender = send.mover == Mover::sender;
    const int other = sender ? ends.to : ends.from;
    const PlanSlot& theirs = slot_of(other, (sender ? receive : send).block);
    if (theirs.space != Space::symmetric) {
      fault(
          "transfer {} from rank {} to rank {}: rank {} moves it and cannot address {} of rank {}",
          tag, ends.from, ends.to, sender ? ends.from : ends.to, theirs.name, other);
    }
  }

  const Transfer& transfer(int rank, std::int32_t item) const {
    const RankPlan& plan = ranks_[static_cast<std::size_t>(rank)];
    const Item& it = plan.items[static_cast<std::size_t>(item)];
    return plan.transfers[static_cast<std::size_t>(it.payload)];
  }

  const PlanSlot& slot_of(int rank, const Block& block) const {
    return ranks_[static_cast<std::size_t>(rank)].slots[static_cast<std::size_t>(block.slot)];
  }

  /// One place in two calls.
  struct Touch {
    std::int32_t item;
    int call;
    const Access* access;
  };

  void check_hazards(const RankPlan& plan, const Order& order) {
    std::vector<std::vector<Touch>> touches(plan.slots.size());
    for (const int call : {0, 1}) {
      for (std::size_t i = 0; i < plan.items.size(); ++i) {
        for (std::int32_t a = 0; a < plan.items[i].accesses.count; ++a) {
          const Access& x = access(plan, plan.items[i], a);
          touches[static_cast<std::size_t>(x.block.slot)].push_back(
              {static_cast<std::int32_t>(i), call, &x});
        }
      }
    }
    for (const auto& slot : touches) {
      for (std::size_t i = 0; i < slot.size(); ++i) {
        for (std::size_t j = i + 1; j < slot.size(); ++j) check_pair(plan, order, slot[i], slot[j]);
      }
    }
  }

  void check_pair(const RankPlan& plan, const Order& order, const Touch& a, const Touch& b) {
    if (a.item == b.item && a.call == b.call) return;
    if (a.access->mode == AccessMode::read && b.access->mode == AccessMode::read) return;
    if (!attn::overlaps(a.access->block, b.access->block)) return;
    // Enqueue order decides who has to be first.
    if (order.before(plan.rank, a.item, a.call, b.item, b.call)) return;
    fault("hazard on slot {} ({}): [{}] and [{}]{} touch it unordered", a.access->block.slot,
          plan.slots[static_cast<std::size_t>(a.access->block.slot)].name, describe(plan, a.item),
          describe(plan, b.item), a.call == b.call ? "" : " of the next call");
  }

  const std::vector<RankPlan>& ranks_;
  bool stage_caller_;
  std::vector<std::string> faults_;
  std::vector<attn::TransferEnds> ends_;
};

}  // namespace

std::vector<std::string> check_plan(const std::vector<RankPlan>& ranks, bool stage_caller) {
  return Checker(ranks, stage_caller).run();
}

std::vector<std::string> check_plan(const Plan& plan) {
  std::vector<RankPlan> ranks;
  for (int r = 0; r < plan.world(); ++r) ranks.push_back(plan.rank(r));
  return check_plan(ranks, plan.request().options.stage_caller);
}

}  // namespace annulus
