#pragma once

#include <annulus/moe_placement.h>
#include <annulus/moe_routing.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace annulus::moe {

/// The ranks that share the experts: neighbours in the world.
struct Group {
  int first = 0;  ///< of the world
  int ranks = 1;
  int me = 0;  ///< in the group

  int world_rank(int member) const { return first + member; }
};

struct ExchangeShape {
  Group group;
  std::int64_t experts = 0;  ///< of the group
  std::int64_t k = 1;
  std::int64_t row_bytes = 0;
  std::int64_t max_tokens = 0;  ///< of any rank
  std::int64_t capacity = 0;    ///< rows that a rank takes at once
  bool dedup = false;           ///< tokens travel once a rank instead of once an expert
  std::uint32_t hash = 0;       ///< keeps messages of different layers apart

  std::int64_t local_experts() const { return experts / group.ranks; }
};

/// What one routing moves: a pure function of the routing and of all ranks' counts. Kept from
/// dispatch to combine, and for backward, whose dispatch is combine and the other way round.
///
/// A rank's rows lie by expert, then by source, then by token (Placement). Where they are more than
/// `capacity`, they are taken in rounds: round i is rows [i, i + 1) * capacity. A source's pairs in
/// the order (expert, token) are its sent order; those for one rank and round are neighbours in it.
struct ExchangePlan {
  ExchangeShape shape;
  Placement placement;
  std::vector<std::int64_t> counts;       ///< [ranks, experts] pairs by source
  std::vector<std::int64_t> unique;       ///< [ranks, ranks] tokens that source sends to rank
  std::vector<std::int64_t> start;        ///< [ranks, experts] first row of source's pairs
  std::vector<std::int64_t> sent_first;   ///< [experts] of this rank's pairs, in sent order
  std::vector<std::int64_t> sent_at;      ///< [tokens, k] place in sent order; -1: none
  std::vector<std::int64_t> sent_token;   ///< [pairs] token in sent order
  std::vector<std::int64_t> sent_unique;  ///< [pairs] place among the rank's tokens
  std::int64_t pairs = 0;                 ///< of this rank
  std::int64_t rounds = 1;
  bool dedup = false;

  std::int64_t count(int source, std::int64_t expert) const {
    return counts[static_cast<std::size_t>(source * shape.experts + expert)];
  }
  /// Rows of this rank in a round.
  std::int64_t rows(std::int64_t round) const;
};

/// Pairs of one source, one expert and one round: neighbours at both ends.
struct Segment {
  std::int64_t expert = 0;  ///< local to the rank that has it
  std::int64_t row = 0;     ///< first row there, in the round
  std::int64_t sent = 0;    ///< first place in the source's sent order for that rank
  std::int64_t pairs = 0;
};

/// Visits the segments of source -> rank in a round, in sent order. Both ends see the same ones.
template <typename Visit>
void each_segment(const ExchangePlan& plan, int source, int rank, std::int64_t round,
                  Visit&& visit) {
  const std::int64_t local = plan.shape.local_experts();
  const std::int64_t begin = round * plan.shape.capacity;
  const std::int64_t end = begin + plan.shape.capacity;
  std::int64_t sent = 0;
  for (std::int64_t e = 0; e < local; ++e) {
    const std::int64_t expert = rank * local + e;
    const std::int64_t pairs = plan.count(source, expert);
    const std::int64_t first =
        plan.start[static_cast<std::size_t>(source * plan.shape.experts + expert)];
    const std::int64_t low = std::max(first, begin);
    const std::int64_t high = std::min(first + pairs, end);
    if (low < high) visit(Segment{e, low - begin, sent + low - first, high - low});
    sent += pairs;
  }
}

/// The places [first, first + pairs) of source's sent order for rank that a round moves.
struct Slice {
  std::int64_t first = 0;
  std::int64_t pairs = 0;
};
Slice slice_of(const ExchangePlan& plan, int source, int rank, std::int64_t round);

/// Row of `count_row` of this rank: its pairs by expert, then its tokens by rank.
void make_count_row(const ExchangeShape& shape, const Routing& routing,
                    std::vector<std::int64_t>& row, Placement& scratch);

/// Fills `plan` from the count rows of all ranks, [ranks, experts + ranks].
void make_exchange_plan(const ExchangeShape& shape, const Routing& routing,
                        const std::vector<std::int64_t>& count_rows, ExchangePlan& plan);

}  // namespace annulus::moe
