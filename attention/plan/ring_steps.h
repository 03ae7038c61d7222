#pragma once

#include "attention/plan/builder.h"

#include <cstdint>
#include <utility>
#include <vector>

namespace annulus::attn {

/// Where a rank stands in the ring: what is here in step s goes on to the next rank, and that of
/// step s + 1 comes from the previous one.
struct Ring {
  explicit Ring(const RankBuilder& b)
      : size(b.plan().request.mesh.ring), at(b.ring_index()), builder(b) {}

  /// The group whose chunk is here in step s.
  int chunk(int s) const { return ((at - s) % size + size) % size; }
  int next() const { return builder.plan().rank_at((at + 1) % size, builder.ulysses_index()); }
  int previous() const {
    return builder.plan().rank_at((at + size - 1) % size, builder.ulysses_index());
  }
  const Group& group(int s) const {
    return builder.plan().groups[static_cast<std::size_t>(chunk(s))];
  }

  int size;
  int at;
  const RankBuilder& builder;
};

/// Two slots that take turns.
struct Pair {
  std::int32_t slots[2];
  std::int32_t operator[](int s) const { return slots[s % 2]; }
};

/// Unmasked pairs of each step. Steps without any are not attended to.
struct Steps {
  explicit Steps(std::vector<std::int64_t> pairs_of_steps) : pairs(std::move(pairs_of_steps)) {
    for (int s = 0; s < static_cast<int>(pairs.size()); ++s) {
      if (!busy(s)) continue;
      if (first < 0) first = s;
      last = s;
    }
  }
  bool busy(int s) const { return of(s) > 0; }
  std::int64_t of(int s) const { return pairs[static_cast<std::size_t>(s)]; }

  std::vector<std::int64_t> pairs;
  int first = -1;  ///< busy ones; -1: none
  int last = -1;
};

}  // namespace annulus::attn
