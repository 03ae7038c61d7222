// Capacity: who stays where an expert overflows.
#include "moe/routing.h"

#include <annulus/error.h>
#include <annulus/moe.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace annulus::moe {
namespace {

/// Each expert's pairs in token order; `first` has experts + 1 entries.
void sort_by_expert(const Routing& routing, CapacityRoom& room) {
  room.first.assign(static_cast<std::size_t>(routing.experts) + 1, 0);
  for (const std::int32_t e : routing.indices) {
    if (e >= 0) ++room.first[static_cast<std::size_t>(e) + 1];
  }
  for (std::size_t e = 1; e < room.first.size(); ++e) room.first[e] += room.first[e - 1];
  room.pairs.resize(static_cast<std::size_t>(room.first.back()));
  room.next.assign(room.first.begin(), room.first.end() - 1);
  for (std::size_t pair = 0; pair < routing.indices.size(); ++pair) {
    const std::int32_t e = routing.indices[pair];
    if (e < 0) continue;
    room.pairs[static_cast<std::size_t>(room.next[static_cast<std::size_t>(e)]++)] = pair;
  }
}

}  // namespace

std::int64_t capacity_of(const Capacity& capacity, const Routing& routing) {
  if (!std::isfinite(capacity.factor) || capacity.factor < 0) {
    throw InvalidArgument(
        fmt::format("capacity factor {}: must be finite, 0 (dropless) or above", capacity.factor));
  }
  if (capacity.factor == 0 || routing.experts == 0) return -1;
  const auto pairs = static_cast<double>(routing.tokens * routing.k);
  const double most = std::ceil(pairs * capacity.factor / static_cast<double>(routing.experts));
  return static_cast<std::int64_t>(std::min(most, static_cast<double>(routing.tokens)));
}

std::int64_t apply_capacity(const Capacity& capacity, const Routing& routing, Routing& kept,
                            CapacityRoom* room) {
  check(routing);
  const std::int64_t most = capacity_of(capacity, routing);
  if (&kept != &routing) kept = routing;
  if (most < 0) return 0;
  CapacityRoom own;
  CapacityRoom& sorted = room == nullptr ? own : *room;
  sort_by_expert(kept, sorted);
  std::int64_t dropped = 0;
  for (std::size_t e = 0; e + 1 < sorted.first.size(); ++e) {
    const auto begin = sorted.pairs.begin() + sorted.first[e];
    const auto end = sorted.pairs.begin() + sorted.first[e + 1];
    if (end - begin <= most) continue;
    if (capacity.policy == DropPolicy::probability) {
      std::sort(begin, end, [&](std::size_t a, std::size_t b) {
        const float x = kept.weights[a];
        const float y = kept.weights[b];
        return x != y ? x > y : a < b;
      });
    }
    for (auto pair = begin + most; pair != end; ++pair, ++dropped) {
      kept.indices[*pair] = -1;
      kept.weights[*pair] = 0.0F;
    }
  }
  return dropped;
}

}  // namespace annulus::moe
