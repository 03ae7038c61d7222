#include "launch/predict.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

namespace annulus::launch {
namespace {

double predict(const RankPlan& plan, const Rates& rates) {
  const double compute = static_cast<double>(plan.flops) / rates.flops_per_s;
  const double memory = static_cast<double>(plan.peak_bytes()) / rates.memory_bytes_per_s;
  const double link =
      static_cast<double>(std::max(plan.bytes_sent, plan.bytes_received)) / rates.link_bytes_per_s;
  const auto starts = static_cast<double>(plan.transfers.size()) * rates.transfer_s;
  return std::max(compute, memory) + link + starts;
}

void add_rank(const std::vector<Plan>& passes, int rank, const Rates& rates, PlanTotals& totals,
              std::atomic<std::int64_t>& items) {
  const auto r = static_cast<std::size_t>(rank);
  for (const Plan& pass : passes) {
    const RankPlan plan = pass.rank(rank);
    totals.masked_pairs[r] = plan.masked_pairs;
    totals.flops[r] += plan.flops;
    totals.bytes_sent[r] += plan.bytes_sent;
    totals.bytes_received[r] += plan.bytes_received;
    totals.peak_bytes[r] = std::max(totals.peak_bytes[r], plan.peak_bytes());
    totals.predicted_s[r] += predict(plan, rates);
    items += static_cast<std::int64_t>(plan.items.size());
  }
}

PlanTotals zeros(std::size_t world) {
  const std::vector<std::int64_t> zero(world, 0);
  return {.masked_pairs = zero,
          .flops = zero,
          .bytes_sent = zero,
          .bytes_received = zero,
          .peak_bytes = zero,
          .predicted_s = std::vector<double>(world, 0.0),
          .items = 0};
}

}  // namespace

PlanTotals total(const std::vector<Plan>& passes, const Rates& rates, int threads) {
  const int world = passes.front().world();
  PlanTotals totals = zeros(static_cast<std::size_t>(world));
  std::atomic<int> next = 0;
  std::atomic<std::int64_t> items = 0;
  std::exception_ptr failure;
  std::mutex failure_lock;
  const auto work = [&] {
    try {
      for (int rank = next++; rank < world; rank = next++) {
        add_rank(passes, rank, rates, totals, items);
      }
    } catch (...) {
      const std::scoped_lock lock(failure_lock);
      failure = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> helpers;
    for (int t = 1; t < std::min(threads, world); ++t) helpers.emplace_back(work);
    work();
  }
  if (failure) std::rethrow_exception(failure);
  totals.items = items;
  return totals;
}

}  // namespace annulus::launch
