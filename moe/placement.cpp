// Placement: counts, two scans and one pass in token order.
#include "moe/routing.h"

#include <annulus/error.h>
#include <annulus/moe_placement.h>

#include <fmt/format.h>

namespace annulus::moe {
namespace {

constexpr auto at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::int64_t rounded_up(std::int64_t rows, std::int64_t alignment) {
  return (rows + alignment - 1) / alignment * alignment;
}

void check_request(const Routing& routing, const PlacementRequest& r) {
  if (r.ranks < 1 || r.sources < 1 || r.source < 0 || r.source >= r.sources || r.alignment < 1) {
    throw InvalidArgument(
        fmt::format("placement: {} ranks, source {} of {}, alignment {}: cannot be", r.ranks,
                    r.source, r.sources, r.alignment));
  }
  if (routing.experts % r.ranks != 0) {
    throw InvalidArgument(
        fmt::format("placement: {} experts are no multiple of {} ranks", routing.experts, r.ranks));
  }
  if (r.counts.size() != at(r.sources * routing.experts)) {
    throw InvalidArgument(fmt::format("placement: {} counts, needs {} sources x {} experts",
                                      r.counts.size(), r.sources, routing.experts));
  }
  for (std::size_t i = 0; i < r.counts.size(); ++i) {
    if (r.counts[i] >= 0) continue;
    throw InvalidArgument(fmt::format("placement: source {} expert {}: count {} below 0",
                                      static_cast<std::int64_t>(i) / routing.experts,
                                      static_cast<std::int64_t>(i) % routing.experts, r.counts[i]));
  }
}

/// Where each expert's rows begin in its rank, and how many there are.
void lay_out_experts(std::int64_t experts, const PlacementRequest& r, Placement& p) {
  p.expert_first.assign(at(experts), 0);
  p.expert_rows.assign(at(experts), 0);
  p.rank_rows.assign(at(r.ranks), 0);
  const std::int64_t local = experts / r.ranks;
  for (std::int64_t e = 0; e < experts; ++e) {
    for (std::int64_t s = 0; s < r.sources; ++s) {
      p.expert_rows[at(e)] += r.counts[at(s * experts + e)];
    }
    std::int64_t& rows = p.rank_rows[at(e / local)];
    p.expert_first[at(e)] = rows;
    rows += rounded_up(p.expert_rows[at(e)], r.alignment);
  }
}

/// `next` becomes, for each expert, the row that this source's first pair takes.
void start_rows(std::int64_t experts, const PlacementRequest& r, Placement& p) {
  p.next_row = p.expert_first;
  for (std::int64_t e = 0; e < experts; ++e) {
    for (std::int64_t s = 0; s < r.source; ++s) {
      p.next_row[at(e)] += r.counts[at(s * experts + e)];
    }
  }
}

void place_pairs(const Routing& routing, const PlacementRequest& r, Placement& p) {
  const std::int64_t local = routing.experts / r.ranks;
  p.rank.assign(routing.indices.size(), -1);
  p.row.assign(routing.indices.size(), -1);
  for (std::size_t pair = 0; pair < routing.indices.size(); ++pair) {
    const std::int32_t e = routing.indices[pair];
    if (e < 0) continue;
    p.rank[pair] = static_cast<std::int32_t>(e / local);
    p.row[pair] = p.next_row[at(e)]++;
  }
}

/// The counts were gathered; the routing is here. If they disagree, rows of two sources would meet.
void check_counts(const Routing& routing, const PlacementRequest& r, Placement& p) {
  std::vector<std::int64_t>& counts = p.next_row;
  count_selections(routing, counts);
  for (std::int64_t e = 0; e < routing.experts; ++e) {
    const std::int64_t given = r.counts[at(r.source * routing.experts + e)];
    if (counts[at(e)] == given) continue;
    throw InvalidArgument(
        fmt::format("placement: source {} expert {}: the count is {}, the routing has {}", r.source,
                    e, given, counts[at(e)]));
  }
}

bool seen_before(const Placement& p, std::size_t first, std::int64_t slot) {
  for (std::int64_t other = 0; other < slot; ++other) {
    if (p.rank[first + at(other)] == p.rank[first + at(slot)]) return true;
  }
  return false;
}

/// Calls visit(token, rank, pair) once for each rank of each token, in token order.
template <typename Visit>
void each_unique(const Placement& p, Visit visit) {
  for (std::int64_t token = 0; token < p.tokens; ++token) {
    const std::size_t first = at(token * p.k);
    for (std::int64_t slot = 0; slot < p.k; ++slot) {
      const std::int32_t rank = p.rank[first + at(slot)];
      if (rank >= 0 && !seen_before(p, first, slot)) visit(token, rank);
    }
  }
}

void list_unique(std::int64_t ranks, Placement& p) {
  p.unique_first.assign(at(ranks) + 1, 0);
  each_unique(p, [&](std::int64_t, std::int64_t rank) { ++p.unique_first[at(rank) + 1]; });
  for (std::size_t r = 1; r < p.unique_first.size(); ++r) {
    p.unique_first[r] += p.unique_first[r - 1];
  }
  p.unique_tokens.resize(at(p.unique_first.back()));
  p.next_row.assign(p.unique_first.begin(), p.unique_first.end() - 1);
  each_unique(p, [&](std::int64_t token, std::int64_t rank) {
    p.unique_tokens[at(p.next_row[at(rank)]++)] = token;
  });
}

/// The last place given out for a rank is this token's, while tokens are visited in order.
void number_unique(std::int64_t ranks, Placement& p) {
  p.unique_of.assign(p.rank.size(), -1);
  p.next_row.assign(at(ranks), -1);
  for (std::int64_t token = 0; token < p.tokens; ++token) {
    const std::size_t first = at(token * p.k);
    for (std::int64_t slot = 0; slot < p.k; ++slot) {
      const std::int32_t rank = p.rank[first + at(slot)];
      if (rank < 0) continue;
      if (!seen_before(p, first, slot)) ++p.next_row[at(rank)];
      p.unique_of[first + at(slot)] = p.next_row[at(rank)];
    }
  }
}

}  // namespace

void place(const Routing& routing, const PlacementRequest& request, Placement& placement) {
  check(routing);
  check_request(routing, request);
  check_counts(routing, request, placement);
  placement.tokens = routing.tokens;
  placement.k = routing.k;
  lay_out_experts(routing.experts, request, placement);
  start_rows(routing.experts, request, placement);
  place_pairs(routing, request, placement);
  list_unique(request.ranks, placement);
  number_unique(request.ranks, placement);
}

}  // namespace annulus::moe
