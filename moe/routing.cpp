#include "moe/routing.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>

namespace annulus::moe {
namespace {

void check_sizes(const Routing& r) {
  if (r.tokens < 0 || r.k < 0 || r.experts < 0 || r.k > r.experts) {
    throw InvalidArgument(
        fmt::format("routing: {} tokens, k {}, {} experts: sizes must be at least 0 and k at most "
                    "the experts",
                    r.tokens, r.k, r.experts));
  }
  const auto pairs = static_cast<std::size_t>(r.tokens * r.k);
  if (r.indices.size() != pairs || r.weights.size() != pairs) {
    throw InvalidArgument(fmt::format(
        "routing: {} tokens x {} slots are {} pairs, but there are {} indices and {} weights",
        r.tokens, r.k, pairs, r.indices.size(), r.weights.size()));
  }
}

void check_pair(const Routing& r, std::int64_t token, std::int64_t slot) {
  const std::int32_t expert = r.indices[pair_of(r, token, slot)];
  if (expert < -1 || expert >= r.experts) {
    throw InvalidArgument(fmt::format("routing: token {} slot {}: expert {} is not in [-1, {})",
                                      token, slot, expert, r.experts));
  }
  if (expert == -1) {
    const float weight = r.weights[pair_of(r, token, slot)];
    if (weight != 0.0F) {
      throw InvalidArgument(
          fmt::format("routing: token {} slot {}: weight {} beside -1 (no selection), must be 0",
                      token, slot, weight));
    }
    return;
  }
  for (std::int64_t other = 0; other < slot; ++other) {
    if (r.indices[pair_of(r, token, other)] == expert) {
      throw InvalidArgument(fmt::format("routing: token {}: expert {} in slots {} and {}", token,
                                        expert, other, slot));
    }
  }
}

}  // namespace

void check(const Routing& routing) {
  check_sizes(routing);
  for (std::int64_t token = 0; token < routing.tokens; ++token) {
    for (std::int64_t slot = 0; slot < routing.k; ++slot) check_pair(routing, token, slot);
  }
}

void count_selections(const Routing& routing, std::vector<std::int64_t>& counts) {
  counts.assign(static_cast<std::size_t>(routing.experts), 0);
  for (const std::int32_t expert : routing.indices) {
    if (expert >= 0) ++counts[static_cast<std::size_t>(expert)];
  }
}

LoadStatistics load_of(const std::vector<std::int64_t>& counts) {
  LoadStatistics load;
  for (const std::int64_t count : counts) {
    load.selections += count;
    load.most = std::max(load.most, count);
    load.unused += count == 0 ? 1 : 0;
  }
  if (load.selections > 0) {
    load.max_over_mean = static_cast<double>(load.most) * static_cast<double>(counts.size()) /
                         static_cast<double>(load.selections);
  }
  return load;
}

}  // namespace annulus::moe
