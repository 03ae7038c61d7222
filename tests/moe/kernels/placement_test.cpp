// Placement's kernels against moe/placement.cpp: every output, exactly.
#include "tests/moe/kernels/launches.h"
#include "tests/support/random.h"

#include <annulus/moe_placement.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace annulus::testing {
namespace {

using moe::Placement;
using moe::Routing;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

enum class Skew { none, low_experts, one_expert };

Routing random_routing(std::int64_t tokens, std::int64_t experts, std::int64_t k, Skew skew,
                       std::mt19937_64& generator) {
  Routing r{.tokens = tokens, .k = k, .experts = experts};
  std::vector<std::int32_t> taken;
  for (std::int64_t t = 0; t < tokens; ++t) {
    taken.clear();
    while (static_cast<std::int64_t>(taken.size()) < k) {
      std::int64_t e = random_between(generator, 0, experts - 1);
      if (skew == Skew::low_experts) e = random_between(generator, 0, e);
      if (skew == Skew::one_expert) e = static_cast<std::int64_t>(taken.size()) + experts - k;
      if (std::ranges::find(taken, e) != taken.end()) continue;
      taken.push_back(static_cast<std::int32_t>(e));
    }
    for (const std::int32_t e : taken) {
      const bool none = skew != Skew::one_expert && random_between(generator, 0, 9) == 0;
      r.indices.push_back(none ? -1 : e);
      r.weights.push_back(none ? 0.0F : 1.0F);
    }
  }
  return r;
}

struct Shape {
  std::int64_t tokens, experts, k, ranks, sources, alignment;
  Skew skew = Skew::none;
};

/// What the kernels write, each array one longer than it must be: the last value stays.
struct Written {
  explicit Written(const Shape& s)
      : counts(at(s.experts + 1), -7),
        rank(at(s.tokens * s.k + 1), -7),
        row(at(s.tokens * s.k + 1), -7),
        unique_of(row),
        expert_first(counts),
        expert_rows(counts),
        rank_rows(at(s.ranks + 1), -7),
        unique_first(at(s.ranks + 2), -7),
        unique_tokens(at(s.tokens * std::min(s.k, s.ranks) + 1), -7) {}

  std::vector<std::int64_t> counts;
  std::vector<std::int32_t> rank;
  std::vector<std::int64_t> row, unique_of, expert_first, expert_rows, rank_rows, unique_first,
      unique_tokens;
  std::uint32_t mismatch = 0;
};

/// Takes off the value behind the end, which must be as it was.
template <typename T>
std::vector<T> without_end(std::vector<T> values, std::size_t size) {
  EXPECT_EQ(values.at(size), -7);
  values.resize(size);
  return values;
}

Written placed(const Shape& s, const Routing& r, std::int64_t source,
               std::vector<std::int64_t> matrix, std::uint64_t seed) {
  Written w(s);
  moe::cuda::PlaceParams p;
  p.tokens = static_cast<std::int32_t>(s.tokens);
  p.k = static_cast<std::int32_t>(s.k);
  p.experts = static_cast<std::int32_t>(s.experts);
  p.ranks = static_cast<std::int32_t>(s.ranks);
  p.sources = static_cast<std::int32_t>(s.sources);
  p.source = static_cast<std::int32_t>(source);
  p.alignment = static_cast<std::int32_t>(s.alignment);
  std::vector<std::int32_t> room(at(moe::cuda::place_room(p)), -99);
  p.indices = r.indices.data();
  p.room = room.data();
  p.counts = w.counts.data();
  p.matrix = matrix.data();
  p.rank = w.rank.data();
  p.row = w.row.data();
  p.expert_first = w.expert_first.data();
  p.expert_rows = w.expert_rows.data();
  p.rank_rows = w.rank_rows.data();
  p.unique_first = w.unique_first.data();
  p.unique_tokens = w.unique_tokens.data();
  p.unique_of = w.unique_of.data();
  p.mismatch = &w.mismatch;
  launch_placement(p, seed);
  return w;
}

void expect_as_host(const Shape& s, std::uint64_t seed) {
  SCOPED_TRACE("seed " + std::to_string(seed) + ": " + std::to_string(s.tokens) + " tokens, " +
               std::to_string(s.experts) + " experts, k " + std::to_string(s.k) + ", " +
               std::to_string(s.ranks) + " ranks, " + std::to_string(s.sources) + " sources");
  std::mt19937_64 generator(seed);
  const Routing r = random_routing(s.tokens, s.experts, s.k, s.skew, generator);
  std::vector<std::int64_t> own, matrix;
  moe::count_selections(r, own);
  for (std::int64_t i = 0; i < s.sources * s.experts; ++i) {
    matrix.push_back(random_between(generator, 0, 9));
  }
  const std::int64_t source = random_between(generator, 0, s.sources - 1);
  std::ranges::copy(own, matrix.begin() + source * s.experts);
  Placement want;
  moe::place(r,
             {.ranks = s.ranks,
              .sources = s.sources,
              .source = source,
              .alignment = s.alignment,
              .counts = matrix},
             want);
  const Written got = placed(s, r, source, matrix, seed);
  const std::size_t pairs = r.indices.size();
  EXPECT_EQ(without_end(got.counts, at(s.experts)), own);
  EXPECT_EQ(got.mismatch, 0U);
  EXPECT_EQ(without_end(got.rank, pairs), want.rank);
  EXPECT_EQ(without_end(got.row, pairs), want.row);
  EXPECT_EQ(without_end(got.unique_of, pairs), want.unique_of);
  EXPECT_EQ(without_end(got.expert_first, at(s.experts)), want.expert_first);
  EXPECT_EQ(without_end(got.expert_rows, at(s.experts)), want.expert_rows);
  EXPECT_EQ(without_end(got.rank_rows, at(s.ranks)), want.rank_rows);
  EXPECT_EQ(without_end(got.unique_first, at(s.ranks + 1)), want.unique_first);
  std::vector<std::int64_t> listed = got.unique_tokens;
  listed.resize(want.unique_tokens.size());
  EXPECT_EQ(listed, want.unique_tokens);
  EXPECT_EQ(got.unique_tokens.back(), -7);
}

TEST(MoeKernelsPlacement, EqualsTheHostsFunction) {
  std::uint64_t seed = 0;
  for (const Shape& s : {Shape{7, 6, 3, 3, 2, 1}, Shape{33, 256, 8, 8, 8, 16},
                         Shape{300, 40, 5, 4, 1, 7, Skew::low_experts}, Shape{64, 8, 2, 1, 1, 1},
                         Shape{257, 64, 8, 64, 3, 1}, Shape{1, 512, 10, 2, 2, 128}}) {
    expect_as_host(s, ++seed);
  }
}

TEST(MoeKernelsPlacement, B_C_D_Corners) {
  std::uint64_t seed = 100;
  for (const Shape& s : {Shape{0, 256, 8, 8, 2, 16}, Shape{1, 8, 2, 8, 1, 1},
                         Shape{3, 256, 8, 8, 1, 1}, Shape{530, 8, 1, 8, 2, 1, Skew::one_expert},
                         Shape{290, 32, 4, 2, 1, 1, Skew::one_expert}, Shape{5, 1, 1, 1, 1, 1}}) {
    expect_as_host(s, ++seed);
  }
}

/// More blocks than lanes: the scan of a column goes on.
TEST(MoeKernelsPlacement, ManyBlocks) {
  expect_as_host({33 * 256 + 5, 3, 1, 3, 1, 1, Skew::low_experts}, 200);
  expect_as_host({4096, 256, 8, 8, 8, 1}, 201);
  expect_as_host({4096, 256, 8, 8, 8, 1, Skew::one_expert}, 202);
}

TEST(MoeKernelsPlacement, SaysWhereCountsAreNotThose) {
  const Shape s{9, 4, 1, 2, 1, 1};
  std::mt19937_64 generator(300);
  const Routing r = random_routing(s.tokens, s.experts, s.k, s.skew, generator);
  EXPECT_EQ(placed(s, r, 0, {1, 1, 1, 77}, 300).mismatch, 1U);
}

}  // namespace
}  // namespace annulus::testing
