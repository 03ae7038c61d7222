#include "launch/bench/sample.h"

#include <algorithm>
#include <numeric>

namespace annulus::launch {
namespace {

constexpr double kBudget = 1e9;  ///< FLOPs a rank for rows, and again for keys
constexpr std::size_t kMostGroups = 2;
constexpr std::size_t kMostTokens = 1024;

std::vector<std::int64_t> all(std::size_t count) {
  std::vector<std::int64_t> indices(count);
  std::iota(indices.begin(), indices.end(), 0);
  return indices;
}

/// In an order that looks random but is the same in every run.
std::vector<std::int64_t> shuffled(std::size_t count, std::uint64_t seed) {
  std::vector<std::int64_t> indices = all(count);
  for (std::size_t i = count; i > 1; --i) {
    std::swap(indices[i - 1], indices[mix(seed, i) % i]);
  }
  return indices;
}

/// Takes from `order` while the sum of costs stays within the budget, at least one.
template <typename Cost>
std::vector<std::int64_t> take(const std::vector<std::int64_t>& order, Cost&& cost) {
  std::vector<std::int64_t> taken;
  double spent = 0;
  for (const std::int64_t index : order) {
    spent += cost(index);
    if (!taken.empty() && (spent > kBudget || taken.size() >= kMostTokens)) break;
    taken.push_back(index);
  }
  std::ranges::sort(taken);
  return taken;
}

/// FLOPs of one (query, key) pair over what is checked at once: all heads of all groups, each with
/// at most five products.
double pair_cost(const CheckRequest& request) {
  const Problem& p = request.problem;
  const auto heads = static_cast<double>(p.heads / *p.heads_kv) * static_cast<double>(kMostGroups);
  return heads * static_cast<double>(6 * p.head_dim + 4 * *p.head_dim_v);
}

/// Query rows that see each key: a running sum over where intervals begin and end.
std::vector<std::int64_t> rows_of_keys(const KeyLists& mask, std::int64_t seq_kv) {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(seq_kv) + 1);
  for (const KeyInterval& k : mask.intervals()) {
    ++rows[static_cast<std::size_t>(k.begin)];
    --rows[static_cast<std::size_t>(k.end)];
  }
  std::partial_sum(rows.begin(), rows.end(), rows.begin());
  return rows;
}

}  // namespace

std::vector<HeadGroup> choose_groups(const CheckRequest& request) {
  const Problem& p = request.problem;
  const auto count = static_cast<std::size_t>(p.batch * *p.heads_kv);
  std::vector<std::int64_t> order = request.sampled ? shuffled(count, request.seed) : all(count);
  if (request.sampled) order.resize(std::min(order.size(), kMostGroups));
  std::vector<HeadGroup> groups;
  for (const std::int64_t index : order) {
    groups.push_back({.batch = index / *p.heads_kv, .head_kv = index % *p.heads_kv});
  }
  return groups;
}

std::vector<std::int64_t> choose_rows(const CheckRequest& request, const KeyLists& mask,
                                      std::span<const std::int64_t> positions) {
  if (!request.sampled) return all(positions.size());
  const double each = pair_cost(request);
  return take(shuffled(positions.size(), request.seed + 1), [&](std::int64_t index) {
    const std::int64_t position = positions[static_cast<std::size_t>(index)];
    std::int64_t keys = 0;
    for (const KeyInterval& interval : mask.row(position)) keys += interval.end - interval.begin;
    return each * static_cast<double>(keys);
  });
}

std::vector<std::int64_t> choose_keys(const CheckRequest& request, const KeyLists& mask,
                                      std::span<const std::int64_t> positions) {
  if (!request.sampled) return all(positions.size());
  const double each = pair_cost(request);
  const std::vector<std::int64_t> rows = rows_of_keys(mask, *request.problem.seq_kv);
  return take(shuffled(positions.size(), request.seed + 2), [&](std::int64_t index) {
    const auto key = static_cast<std::size_t>(positions[static_cast<std::size_t>(index)]);
    return each * static_cast<double>(rows[key]);
  });
}

}  // namespace annulus::launch
