#include "attention/plan/order.h"

namespace annulus::attn {
namespace {

std::vector<std::uint32_t> topological(const std::vector<std::vector<std::uint32_t>>& next) {
  std::vector<int> incoming(next.size(), 0);
  for (const auto& list : next) {
    for (const std::uint32_t n : list) ++incoming[n];
  }
  std::vector<std::uint32_t> sorted;
  for (std::size_t n = 0; n < next.size(); ++n) {
    if (incoming[n] == 0) sorted.push_back(static_cast<std::uint32_t>(n));
  }
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    for (const std::uint32_t n : next[sorted[i]]) {
      if (--incoming[n] == 0) sorted.push_back(n);
    }
  }
  return sorted;
}

}  // namespace

Order::Order(const std::vector<RankPlan>& ranks, const std::vector<TransferEnds>& transfers) {
  for (const RankPlan& plan : ranks) {
    first_.push_back(nodes_);
    nodes_ += 2 * plan.items.size();
  }
  next_.resize(2 * nodes_);
  connect(ranks, transfers);
  acyclic_ = sort_with_rendezvous(transfers);
  if (acyclic_) close();
}

std::size_t Order::start(int rank, std::int32_t item, int call) const {
  return first_[static_cast<std::size_t>(rank)] + 2 * static_cast<std::size_t>(item) +
         static_cast<std::size_t>(call) * nodes_;
}

void Order::connect(const std::vector<RankPlan>& ranks,
                    const std::vector<TransferEnds>& transfers) {
  const auto edge = [&](std::size_t a, std::size_t b) {
    next_[a].push_back(static_cast<std::uint32_t>(b));
  };
  for (const int call : {0, 1}) {
    for (const RankPlan& plan : ranks) {
      for (std::size_t i = 0; i < plan.items.size(); ++i) {
        const auto id = static_cast<std::int32_t>(i);
        edge(start(plan.rank, id, call), end(plan.rank, id, call));
        for (const std::int32_t w : plan.waits(plan.items[i])) {
          edge(end(plan.rank, w, call), start(plan.rank, id, call));
        }
        if (call == 0) continue;
        for (const std::int32_t w : plan.waits_previous(plan.items[i])) {
          edge(end(plan.rank, w, 0), start(plan.rank, id, 1));
        }
      }
    }
    for (const TransferEnds& t : transfers) {
      edge(start(t.from, t.send, call), end(t.to, t.receive, call));
    }
  }
}

bool Order::sort_with_rendezvous(const std::vector<TransferEnds>& transfers) {
  sorted_ = topological(next_);
  if (sorted_.size() != next_.size()) return false;
  auto blocking = next_;
  for (const int call : {0, 1}) {
    for (const TransferEnds& t : transfers) {
      blocking[start(t.to, t.receive, call)].push_back(
          static_cast<std::uint32_t>(end(t.from, t.send, call)));
    }
  }
  return topological(blocking).size() == next_.size();
}

void Order::close() {
  const std::size_t words = (next_.size() + 63) / 64;
  reach_.assign(next_.size(), std::vector<std::uint64_t>(words, 0));
  for (auto n = sorted_.rbegin(); n != sorted_.rend(); ++n) {
    std::vector<std::uint64_t>& mine = reach_[*n];
    for (const std::uint32_t m : next_[*n]) {
      mine[m / 64] |= std::uint64_t{1} << (m % 64);
      for (std::size_t w = 0; w < words; ++w) mine[w] |= reach_[m][w];
    }
  }
}

bool Order::before(int rank, std::int32_t a, int call_a, std::int32_t b, int call_b) const {
  const std::size_t from = end(rank, a, call_a);
  const std::size_t to = start(rank, b, call_b);
  return (reach_[from][to / 64] >> (to % 64) & 1U) != 0;
}

}  // namespace annulus::attn
