#include "moe/exchange_plan.h"

#include "moe/routing.h"

#include <cstddef>

namespace annulus::moe {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

void fill_starts(ExchangePlan& plan) {
  const std::int64_t experts = plan.shape.experts;
  plan.start.resize(plan.counts.size());
  for (std::int64_t e = 0; e < experts; ++e) {
    std::int64_t row = plan.placement.expert_first[at(e)];
    for (int source = 0; source < plan.shape.group.ranks; ++source) {
      plan.start[at(source * experts + e)] = row;
      row += plan.count(source, e);
    }
  }
}

void fill_sent(const Routing& routing, ExchangePlan& plan) {
  const int me = plan.shape.group.me;
  const std::int64_t experts = plan.shape.experts;
  plan.sent_first.resize(at(experts));
  plan.pairs = 0;
  for (std::int64_t e = 0; e < experts; ++e) {
    plan.sent_first[at(e)] = plan.pairs;
    plan.pairs += plan.count(me, e);
  }
  plan.sent_at.resize(routing.indices.size());
  plan.sent_token.resize(at(plan.pairs));
  plan.sent_unique.resize(at(plan.pairs));
  for (std::size_t pair = 0; pair < routing.indices.size(); ++pair) {
    plan.sent_at[pair] = -1;
    const std::int64_t expert = routing.indices[pair];
    if (expert < 0) continue;
    const std::int64_t place = plan.sent_first[at(expert)] + plan.placement.row[pair] -
                               plan.start[at(me * experts + expert)];
    plan.sent_at[pair] = place;
    plan.sent_token[at(place)] = static_cast<std::int64_t>(pair) / routing.k;
    plan.sent_unique[at(place)] = plan.placement.unique_of[pair];
  }
}

}  // namespace

std::int64_t ExchangePlan::rows(std::int64_t round) const {
  const std::int64_t all = placement.rank_rows[at(shape.group.me)];
  return std::clamp<std::int64_t>(all - round * shape.capacity, 0, shape.capacity);
}

Slice slice_of(const ExchangePlan& plan, int source, int rank, std::int64_t round) {
  Slice slice;
  each_segment(plan, source, rank, round, [&](const Segment& s) {
    if (slice.pairs == 0) slice.first = s.sent;
    slice.pairs += s.pairs;
  });
  return slice;
}

void make_count_row(const ExchangeShape& shape, const Routing& routing,
                    std::vector<std::int64_t>& row, Placement& scratch) {
  count_selections(routing, row);
  place(routing, {.ranks = shape.group.ranks, .sources = 1, .source = 0, .counts = row}, scratch);
  for (int rank = 0; rank < shape.group.ranks; ++rank) {
    row.push_back(scratch.unique_first[at(rank + 1)] - scratch.unique_first[at(rank)]);
  }
}

void make_exchange_plan(const ExchangeShape& shape, const Routing& routing,
                        const std::vector<std::int64_t>& count_rows, ExchangePlan& plan) {
  const std::int64_t ranks = shape.group.ranks;
  plan.shape = shape;
  plan.counts.resize(at(ranks * shape.experts));
  plan.unique.resize(at(ranks * ranks));
  for (std::int64_t source = 0; source < ranks; ++source) {
    const std::int64_t* row = count_rows.data() + source * (shape.experts + ranks);
    std::copy_n(row, shape.experts, plan.counts.begin() + source * shape.experts);
    std::copy_n(row + shape.experts, ranks, plan.unique.begin() + source * ranks);
  }
  place(routing,
        {.ranks = ranks, .sources = ranks, .source = shape.group.me, .counts = plan.counts},
        plan.placement);
  const std::int64_t most = std::ranges::max(plan.placement.rank_rows);
  plan.rounds = std::max<std::int64_t>(1, (most + shape.capacity - 1) / shape.capacity);
  // A round holds some of a token's pairs, so its tokens are not those that were counted.
  plan.dedup = shape.dedup && plan.rounds == 1;
  fill_starts(plan);
  fill_sent(routing, plan);
}

}  // namespace annulus::moe
