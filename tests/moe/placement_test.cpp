// Placement as properties, against a search over all pairs of all sources.
#include <annulus/error.h>
#include <annulus/moe_placement.h>

#include "tests/support/random.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

namespace annulus::moe {
namespace {

using annulus::testing::random_between;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// All tokens of a batch, before they are spread over sources.
struct Batch {
  std::uint64_t seed = 0;
  Routing routing;

  std::string describe() const {
    return "seed " + std::to_string(seed) + ": " + std::to_string(routing.tokens) + " tokens, " +
           std::to_string(routing.experts) + " experts, k " + std::to_string(routing.k);
  }
};

/// Skewed: low experts are liked; a tenth of the pairs are no selection.
Batch random_batch(std::uint64_t seed, std::int64_t experts) {
  std::mt19937_64 generator(seed);
  Batch batch{.seed = seed, .routing = {}};
  Routing& r = batch.routing;
  r.tokens = std::array<std::int64_t, 6>{7, 1, 0, 33, 3, 64}[seed % 6];
  r.experts = experts;
  r.k = random_between(generator, 1, std::min<std::int64_t>(experts, 8));
  for (std::int64_t t = 0; t < r.tokens; ++t) {
    std::set<std::int32_t> taken;
    while (static_cast<std::int64_t>(taken.size()) < r.k) {
      const std::int64_t most = random_between(generator, 0, experts - 1);
      const auto e = static_cast<std::int32_t>(random_between(generator, 0, most));
      if (!taken.insert(e).second) continue;
      const bool none = random_between(generator, 0, 9) == 0;
      r.indices.push_back(none ? -1 : e);
      r.weights.push_back(none ? 0.0F : 1.0F);
    }
  }
  return batch;
}

/// Neighbouring tokens on each source; uneven, and some sources have none.
std::vector<Routing> spread(const Routing& all, std::int64_t sources, std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::vector<std::int64_t> cuts{0, all.tokens};
  for (std::int64_t s = 1; s < sources; ++s)
    cuts.push_back(random_between(generator, 0, all.tokens));
  std::ranges::sort(cuts);
  std::vector<Routing> parts;
  for (std::size_t s = 0; s + 1 < cuts.size(); ++s) {
    Routing part{.tokens = cuts[s + 1] - cuts[s],
                 .k = all.k,
                 .experts = all.experts,
                 .indices = {},
                 .weights = {}};
    const auto from = cuts[s] * all.k, to = cuts[s + 1] * all.k;
    part.indices.assign(all.indices.begin() + from, all.indices.begin() + to);
    part.weights.assign(all.weights.begin() + from, all.weights.begin() + to);
    parts.push_back(part);
  }
  return parts;
}

std::vector<std::int64_t> count_matrix(const std::vector<Routing>& parts) {
  std::vector<std::int64_t> matrix;
  std::vector<std::int64_t> counts;
  for (const Routing& part : parts) {
    count_selections(part, counts);
    matrix.insert(matrix.end(), counts.begin(), counts.end());
  }
  return matrix;
}

/// A pair by its place in the whole batch.
struct Pair {
  std::int64_t token = 0;
  std::int64_t slot = 0;
  auto operator<=>(const Pair&) const = default;
};

struct Placed {
  std::map<std::pair<std::int64_t, std::int64_t>, Pair> rows;  ///< (rank, row) -> pair
  std::vector<Placement> of;                                   ///< by source
};

Placed place_all(const std::vector<Routing>& parts, std::int64_t ranks, std::int64_t alignment) {
  Placed placed;
  const auto matrix = count_matrix(parts);
  std::int64_t token = 0;
  Placement poison;
  poison.row.assign(4096, -77);
  poison.rank.assign(4096, -77);
  poison.unique_of.assign(4096, -77);
  for (std::size_t s = 0; s < parts.size(); ++s) {
    Placement p = poison;
    place(parts[s],
          {.ranks = ranks,
           .sources = static_cast<std::int64_t>(parts.size()),
           .source = static_cast<std::int64_t>(s),
           .alignment = alignment,
           .counts = matrix},
          p);
    for (std::size_t i = 0; i < p.row.size(); ++i) {
      const std::int64_t local = static_cast<std::int64_t>(i) / p.k;
      if (parts[s].indices[i] < 0) {
        EXPECT_EQ(p.row[i], -1);
        EXPECT_EQ(p.rank[i], -1);
        EXPECT_EQ(p.unique_of[i], -1);
        continue;
      }
      const bool fresh = placed.rows
                             .emplace(std::pair(std::int64_t{p.rank[i]}, p.row[i]),
                                      Pair{token + local, static_cast<std::int64_t>(i) % p.k})
                             .second;
      EXPECT_TRUE(fresh) << "two pairs in row " << p.row[i] << " of rank " << p.rank[i];
    }
    token += parts[s].tokens;
    placed.of.push_back(std::move(p));
  }
  return placed;
}

/// Rows of each expert in their order, as pairs of the batch.
std::vector<std::vector<Pair>> order_by_expert(const Batch& batch, const Placed& placed,
                                               std::int64_t ranks, std::int64_t alignment) {
  const std::int64_t local = batch.routing.experts / ranks;
  std::vector<std::vector<Pair>> order(at(batch.routing.experts));
  const Placement& p = placed.of.front();
  for (std::int64_t e = 0; e < batch.routing.experts; ++e) {
    EXPECT_EQ(p.expert_first[at(e)] % alignment, 0);
    for (std::int64_t i = 0; i < p.expert_rows[at(e)]; ++i) {
      const auto found = placed.rows.find({e / local, p.expert_first[at(e)] + i});
      if (found == placed.rows.end()) {
        ADD_FAILURE() << "expert " << e << " row " << i << " is empty";
        continue;
      }
      const auto [token, slot] = found->second;
      EXPECT_EQ(batch.routing.indices[at(token * batch.routing.k + slot)], e);
      order[at(e)].push_back(found->second);
    }
  }
  return order;
}

void expect_totals(const Placed& placed, const Batch& batch, std::int64_t ranks,
                   std::int64_t alignment) {
  std::int64_t rows = 0;
  const std::int64_t local = batch.routing.experts / ranks;
  for (const Placement& p : placed.of) {
    EXPECT_EQ(p.expert_first, placed.of.front().expert_first);
    EXPECT_EQ(p.expert_rows, placed.of.front().expert_rows);
    EXPECT_EQ(p.rank_rows, placed.of.front().rank_rows);
  }
  const Placement& p = placed.of.front();
  for (std::int64_t r = 0; r < ranks; ++r) {
    std::int64_t expected = 0;
    for (std::int64_t e = r * local; e < (r + 1) * local; ++e) {
      EXPECT_EQ(p.expert_first[at(e)], expected);
      const std::int64_t used = p.expert_rows[at(e)];
      rows += used;
      expected += used % alignment == 0 ? used : used + alignment - used % alignment;
    }
    EXPECT_EQ(p.rank_rows[at(r)], expected);
  }
  EXPECT_EQ(rows, static_cast<std::int64_t>(placed.rows.size()));
  EXPECT_EQ(rows, std::ranges::count_if(batch.routing.indices, [](int e) { return e >= 0; }));
}

void expect_unique(const Placed& placed, const std::vector<Routing>& parts, std::int64_t ranks) {
  for (std::size_t s = 0; s < parts.size(); ++s) {
    const Placement& p = placed.of[s];
    ASSERT_EQ(p.unique_first.size(), at(ranks) + 1);
    EXPECT_EQ(p.unique_first.back(), static_cast<std::int64_t>(p.unique_tokens.size()));
    for (std::int64_t r = 0; r < ranks; ++r) {
      std::vector<std::int64_t> expected;
      for (std::int64_t t = 0; t < p.tokens; ++t) {
        const auto first = p.rank.begin() + t * p.k;
        if (std::find(first, first + p.k, r) != first + p.k) expected.push_back(t);
      }
      const std::vector<std::int64_t> listed(p.unique_tokens.begin() + p.unique_first[at(r)],
                                             p.unique_tokens.begin() + p.unique_first[at(r) + 1]);
      EXPECT_EQ(listed, expected) << "rank " << r;
    }
    for (std::size_t i = 0; i < p.rank.size(); ++i) {
      if (p.rank[i] < 0) continue;
      const std::int64_t place = p.unique_first[at(p.rank[i])] + p.unique_of[i];
      EXPECT_EQ(p.unique_tokens[at(place)], static_cast<std::int64_t>(i) / p.k);
    }
  }
}

TEST(Placement, M_IsABijectionInOneOrderForEveryDegree) {
  for (std::uint64_t seed = 1; seed <= 120; ++seed) {
    const std::int64_t experts = 8 * static_cast<std::int64_t>(1 + seed % 5);
    const Batch batch = random_batch(seed, experts);
    SCOPED_TRACE(batch.describe());
    std::vector<std::vector<Pair>> reference;
    for (const std::int64_t ranks : {1, 2, 4, 8}) {
      const std::int64_t alignment = std::array<std::int64_t, 3>{1, 16, 7}[seed % 3];
      SCOPED_TRACE("ranks " + std::to_string(ranks));
      const auto parts = spread(batch.routing, ranks, seed + 5);
      const Placed placed = place_all(parts, ranks, alignment);
      const auto order = order_by_expert(batch, placed, ranks, alignment);
      for (const auto& pairs : order) EXPECT_TRUE(std::ranges::is_sorted(pairs));  // token order
      if (ranks == 1) reference = order;
      EXPECT_EQ(order, reference);
      expect_totals(placed, batch, ranks, alignment);
      expect_unique(placed, parts, ranks);
    }
  }
}

TEST(Placement, SourcesNeedNotBeTheExpertsRanks) {
  const Batch batch = random_batch(9, 12);
  SCOPED_TRACE(batch.describe());
  const auto alone = place_all(spread(batch.routing, 1, 1), 3, 1);
  const auto apart = place_all(spread(batch.routing, 5, 1), 3, 1);
  EXPECT_EQ(alone.rows, apart.rows);
}

TEST(Placement, ByHand) {
  // source 0: tokens {2, 0}, {2, 3}; source 1: tokens {0, 2}, {-1, 1}; 4 experts on 2 ranks
  const Routing second{
      .tokens = 2, .k = 2, .experts = 4, .indices = {0, 2, -1, 1}, .weights = {1, 1, 0, 1}};
  const std::vector<std::int64_t> counts{1, 0, 2, 1, 1, 1, 1, 0};
  Placement p;
  place(second, {.ranks = 2, .sources = 2, .source = 1, .alignment = 4, .counts = counts}, p);
  EXPECT_THAT(p.rank, ElementsAre(0, 1, -1, 0));
  EXPECT_THAT(p.row, ElementsAre(1, 2, -1, 4));
  EXPECT_THAT(p.expert_first, ElementsAre(0, 4, 0, 4));
  EXPECT_THAT(p.expert_rows, ElementsAre(2, 1, 3, 1));
  EXPECT_THAT(p.rank_rows, ElementsAre(8, 8));
  EXPECT_THAT(p.unique_first, ElementsAre(0, 2, 3));
  EXPECT_THAT(p.unique_tokens, ElementsAre(0, 1, 0));
  EXPECT_THAT(p.unique_of, ElementsAre(0, 0, -1, 1));
}

TEST(PlacementCorner, B_C_NoTokensAndFewerThanExperts) {
  const Routing none{.tokens = 0, .k = 8, .experts = 256, .indices = {}, .weights = {}};
  std::vector<std::int64_t> counts(2 * 256, 0);
  counts[256 + 3] = 5;  // the other source's
  Placement p;
  place(none, {.ranks = 8, .sources = 2, .source = 0, .alignment = 16, .counts = counts}, p);
  EXPECT_TRUE(p.row.empty());
  EXPECT_THAT(p.rank_rows, ElementsAre(16, 0, 0, 0, 0, 0, 0, 0));
  EXPECT_EQ(p.expert_rows[3], 5);
  EXPECT_EQ(p.expert_rows[4], 0);  // an expert without rows has none, aligned or not
  const Routing one{.tokens = 1, .k = 2, .experts = 256, .indices = {255, 0}, .weights = {1, 1}};
  std::vector<std::int64_t> alone(256, 0);
  alone[255] = alone[0] = 1;
  place(one, {.ranks = 8, .sources = 1, .source = 0, .alignment = 1, .counts = alone}, p);
  EXPECT_THAT(p.rank, ElementsAre(7, 0));
  EXPECT_THAT(p.row, ElementsAre(0, 0));
}

TEST(PlacementCorner, D_AllTokensToOneExpert) {
  Batch batch{.seed = 0,
              .routing = {.tokens = 40, .k = 1, .experts = 8, .indices = {}, .weights = {}}};
  batch.routing.indices.assign(40, 6);
  batch.routing.weights.assign(40, 1.0F);
  const auto parts = spread(batch.routing, 8, 3);
  const Placed placed = place_all(parts, 8, 1);
  expect_totals(placed, batch, 8, 1);
  EXPECT_THAT(placed.of[0].rank_rows, ElementsAre(0, 0, 0, 0, 0, 0, 40, 0));
  const auto order = order_by_expert(batch, placed, 8, 1);
  for (std::int64_t i = 0; i < 40; ++i) EXPECT_EQ(order[6][at(i)].token, i);
}

TEST(Placement, ASecondCallAllocatesNothing) {
  const Batch batch = random_batch(3, 16);
  const auto matrix = count_matrix({batch.routing});
  const PlacementRequest request{
      .ranks = 4, .sources = 1, .source = 0, .alignment = 1, .counts = matrix};
  Placement p;
  place(batch.routing, request, p);
  const auto* row = p.row.data();
  const auto* unique = p.unique_tokens.data();
  const auto* room = p.next_row.data();
  place(batch.routing, request, p);
  EXPECT_EQ(p.row.data(), row);
  EXPECT_EQ(p.unique_tokens.data(), unique);
  EXPECT_EQ(p.next_row.data(), room);
}

std::string refusal(const Routing& routing, const PlacementRequest& request) {
  Placement p;
  try {
    place(routing, request, p);
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "none";
}

TEST(Placement, RefusesWhatCannotBe) {
  Routing r{.tokens = 1, .k = 1, .experts = 4, .indices = {2}, .weights = {1}};
  std::vector<std::int64_t> counts{0, 0, 1, 0};
  EXPECT_EQ(refusal(r, {.counts = counts}), "none");
  EXPECT_THAT(refusal(r, {.ranks = 3, .counts = counts}),
              HasSubstr("4 experts are no multiple of 3"));
  EXPECT_THAT(refusal(r, {.sources = 2, .counts = counts}),
              HasSubstr("4 counts, needs 2 sources x 4"));
  EXPECT_THAT(refusal(r, {.source = 1, .counts = counts}), HasSubstr("source 1 of 1"));
  EXPECT_THAT(refusal(r, {.alignment = 0, .counts = counts}), HasSubstr("alignment 0"));
  counts[1] = -1;
  EXPECT_THAT(refusal(r, {.counts = counts}), HasSubstr("source 0 expert 1: count -1"));
  counts[1] = 1;
  EXPECT_THAT(refusal(r, {.counts = counts}),
              HasSubstr("source 0 expert 1: the count is 1, the routing has 0"));
  r.indices[0] = 4;
  EXPECT_THAT(refusal(r, {.counts = counts}), HasSubstr("expert 4 is not in [-1, 4)"));
}

}  // namespace
}  // namespace annulus::moe
