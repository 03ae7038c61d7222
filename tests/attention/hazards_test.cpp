// Overlap, cover, trim, and edges from accesses, against element sets.

#include "attention/plan/hazards.h"
#include "tests/attention/random_request.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <tuple>

namespace annulus::attn {
namespace {

using test::Random;
using Elements = std::set<std::tuple<std::int64_t, std::int32_t, std::int32_t>>;

Block random_block(Random& random) {
  Block b;
  b.slot = 0;
  b.token_step = random.one_in(3) ? random.between(2, 3) : 1;
  b.token = random.between(0, 6);
  b.tokens = random.between(1, 5);
  b.head = static_cast<std::int32_t>(random.between(0, 2));
  b.heads = static_cast<std::int32_t>(random.between(1, 3));
  b.dim = static_cast<std::int32_t>(random.between(0, 2));
  b.dims = static_cast<std::int32_t>(random.between(1, 3));
  return b;
}

Elements elements_of(const Block& b) {
  Elements all;
  for (std::int64_t t = 0; t < b.tokens; ++t) {
    for (std::int32_t h = 0; h < b.heads; ++h) {
      for (std::int32_t d = 0; d < b.dims; ++d) {
        all.insert({b.token + t * b.token_step, b.head + h, b.dim + d});
      }
    }
  }
  return all;
}

bool meet(const Elements& a, const Elements& b) {
  return std::any_of(a.begin(), a.end(), [&](const auto& e) { return b.count(e) > 0; });
}

TEST(Blocks, OverlapNeverMissesAndIsExactForEqualSteps) {
  for (std::uint64_t seed = 0; seed < 5000; ++seed) {
    Random random(seed);
    const Block a = random_block(random);
    const Block b = random_block(random);
    const bool truth = meet(elements_of(a), elements_of(b));
    if (truth) {
      EXPECT_TRUE(overlaps(a, b)) << "seed " << seed;
    }
    if (a.token_step == b.token_step) {
      EXPECT_EQ(overlaps(a, b), truth) << "seed " << seed;
    }
  }
}

TEST(Blocks, CoverHoldsEveryElement) {
  for (std::uint64_t seed = 0; seed < 5000; ++seed) {
    Random random(seed);
    const Block a = random_block(random);
    const Block b = random_block(random);
    const Elements all = elements_of(a);
    const Elements part = elements_of(b);
    const bool truth = std::includes(all.begin(), all.end(), part.begin(), part.end());
    if (covers(a, b)) {
      EXPECT_TRUE(truth) << "seed " << seed;
    }
    if (a.token_step == 1 && b.token_step == 1) {
      EXPECT_EQ(covers(a, b), truth) << "seed " << seed;
    }
  }
}

TEST(Blocks, TrimTakesNothingThatTheWriteDoesNotCover) {
  int trimmed = 0;
  for (std::uint64_t seed = 0; seed < 5000; ++seed) {
    Random random(seed);
    const Block before = random_block(random);
    const Block write = random_block(random);
    Block after = before;
    if (covers(write, before) || !overlaps(write, before) || !trim(after, write)) continue;
    ++trimmed;
    const Elements written = elements_of(write);
    Elements expected;
    for (const auto& e : elements_of(before)) {
      if (written.count(e) == 0) expected.insert(e);
    }
    EXPECT_EQ(elements_of(after), expected) << "seed " << seed;
  }
  EXPECT_GT(trimmed, 50);
}

/// True if `to` can be reached from `from` over waits.
bool reaches(const std::vector<std::vector<std::int32_t>>& waits, std::int32_t to,
             std::int32_t from) {
  const auto& list = waits[static_cast<std::size_t>(to)];
  return std::any_of(list.begin(), list.end(), [&](std::int32_t w) {
    return w == from || (w > from && reaches(waits, w, from));
  });
}

TEST(HazardTracker, OrdersEveryConflictAndNothingElse) {
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    Random random(seed);
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::vector<Access> accesses;
    for (int i = 0; i < 12; ++i) {
      accesses.push_back(
          {random_block(random),
           random.any_of<AccessMode>({AccessMode::read, AccessMode::write, AccessMode::update})});
    }
    HazardTracker tracker(1, accesses.size());
    std::vector<std::vector<std::int32_t>> waits(2 * accesses.size());
    const auto count = static_cast<std::int32_t>(accesses.size());
    for (std::int32_t n = 0; n < 2 * count; ++n) {
      if (n == count) tracker.next_call();
      std::vector<std::int32_t> same;
      std::vector<std::int32_t> previous;
      tracker.visit(n % count, {&accesses[static_cast<std::size_t>(n % count)], 1}, same, previous);
      auto& list = waits[static_cast<std::size_t>(n)];
      const std::int32_t call = n - n % count;
      for (const std::int32_t w : same) list.push_back(w + call);
      for (const std::int32_t w : previous) list.push_back(w);
    }
    for (std::int32_t b = 0; b < 2 * count; ++b) {
      const Access& later = accesses[static_cast<std::size_t>(b % count)];
      for (std::int32_t a = 0; a < b; ++a) {
        const Access& earlier = accesses[static_cast<std::size_t>(a % count)];
        const bool conflict =
            (earlier.mode != AccessMode::read || later.mode != AccessMode::read) &&
            overlaps(earlier.block, later.block);
        const auto& list = waits[static_cast<std::size_t>(b)];
        if (conflict) {
          ASSERT_TRUE(reaches(waits, b, a)) << a << " before " << b;
        }
        if (std::count(list.begin(), list.end(), a) > 0) {
          ASSERT_TRUE(conflict) << a << " " << b;
        }
      }
    }
  }
}

}  // namespace
}  // namespace annulus::attn
