#include "launch/predict.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

namespace annulus::launch {
namespace {

void add_rank(const std::vector<Plan>& passes, int rank, const Machine& rates, RanksTotals& totals,
              std::atomic<std::int64_t>& items) {
  const auto r = static_cast<std::size_t>(rank);
  for (const Plan& pass : passes) {
    const PlanTotals plan = pass.totals(rank);
    totals.masked_pairs[r] = plan.masked_pairs;
    totals.flops[r] += plan.flops;
    totals.bytes_sent[r] += plan.bytes_sent;
    totals.bytes_received[r] += plan.bytes_received;
    totals.peak_bytes[r] = std::max(totals.peak_bytes[r], plan.peak_bytes());
    totals.predicted_s[r] += predicted_seconds(plan, rates);
    items += plan.item_count;
  }
}

RanksTotals zeros(std::size_t world) {
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

RanksTotals total(const std::vector<Plan>& passes, const Machine& rates, int threads) {
  const int world = passes.front().world();
  RanksTotals totals = zeros(static_cast<std::size_t>(world));
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
