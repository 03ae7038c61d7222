// The balanced layout: even area, even tokens, neighbours together.

#include "attention/bands.h"

#include <annulus/layout.h>

#include "tests/attention/random_request.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace annulus {
namespace {

constexpr std::int64_t kSeq = 65536;

enum class Tail { log_normal, pareto };

/// Long-tailed document lengths that sum to `seq`; the longest may be half of it.
std::vector<std::int64_t> long_tailed(Tail tail, std::uint64_t seed, std::int64_t seq) {
  std::mt19937_64 engine(seed);
  std::lognormal_distribution<double> log_normal(6.0, 1.5);
  std::uniform_real_distribution<double> uniform(1e-6, 1.0);
  std::vector<std::int64_t> lengths;
  std::int64_t left = seq;
  while (left > 0) {
    const double drawn = tail == Tail::log_normal ? log_normal(engine)
                                                  : 100.0 * std::pow(uniform(engine), -1.0 / 1.1);
    const auto length = static_cast<std::int64_t>(std::clamp(drawn, 1.0, double(seq) / 2));
    lengths.push_back(std::min(left, length));
    left -= lengths.back();
  }
  return lengths;
}

struct Balance {
  double slowest = 0.0;  ///< over the mean
  std::int64_t token_spread = 0;
  double ranges = 0.0;  ///< a rank, on average
};

Balance balance_of(const Layout& layout, const Problem& problem, int world) {
  const Problem p = resolved(problem);
  const auto bands = attn::compile_bands(p);
  const Sharding s = solve_layout(layout, p, world);
  Balance b;
  std::int64_t total = 0;
  std::int64_t most = 0;
  std::int64_t least_tokens = p.seq;
  std::int64_t most_tokens = 0;
  for (int r = 0; r < world; ++r) {
    std::int64_t area = 0;
    for (const TokenRange& range : s.shard(r)) {
      for (std::int64_t i = 0; i<range.count; i += range.stride> 1 ? 1 : range.count) {
        const std::int64_t at = range.position(i);
        area += attn::count_pairs(bands, at, range.stride > 1 ? at + 1 : at + range.count);
      }
    }
    total += area;
    most = std::max(most, area);
    least_tokens = std::min(least_tokens, s.seq_local(r));
    most_tokens = std::max(most_tokens, s.seq_local(r));
    b.ranges += static_cast<double>(s.shard(r).size()) / world;
  }
  b.slowest = static_cast<double>(most) * world / static_cast<double>(total);
  b.token_spread = most_tokens - least_tokens;
  return b;
}

Problem with_mask(std::int64_t seq, Mask mask) {
  Problem p;
  p.seq = seq;
  p.mask = std::move(mask);
  return p;
}

TEST(BalancedLayout, KeepsTheSlowestRankWithinATenthOfTheMeanOnLongTailedDocuments) {
  double worst = 0.0;
  double worst_zigzag = 0.0;
  double most_ranges = 0.0;
  for (const Tail tail : {Tail::log_normal, Tail::pareto}) {
    for (const bool causal : {true, false}) {
      for (const int world : {4, 8, 16, 64}) {
        for (std::uint64_t seed = 0; seed < 12; ++seed) {
          const Problem p = with_mask(kSeq, Mask::documents(long_tailed(tail, seed, kSeq), causal));
          const Balance b = balance_of(Layout::balanced(), p, world);
          SCOPED_TRACE(fmt::format("{} {} world {} seed {}: {:.3f}, {:.1f} ranges",
                                   tail == Tail::pareto ? "pareto" : "log-normal",
                                   causal ? "causal" : "full", world, seed, b.slowest, b.ranges));
          EXPECT_LE(b.slowest, 1.1);
          EXPECT_LE(b.token_spread, 32) << "equal chunks, rounded";
          EXPECT_LE(b.ranges, 16.0) << "of 16 chunks a rank and more";
          worst = std::max(worst, b.slowest);
          worst_zigzag = std::max(worst_zigzag, balance_of(Layout::zigzag(), p, world).slowest);
          most_ranges = std::max(most_ranges, b.ranges);
        }
      }
    }
  }
  fmt::print("slowest rank / mean: balanced {:.3f}, zigzag {:.3f}; at most {:.1f} ranges a rank\n",
             worst, worst_zigzag, most_ranges);
}

TEST(BalancedLayout, EvensOutOneCausalDocument) {
  for (const int world : {2, 3, 4, 8, 16, 64, 100}) {
    const Balance b = balance_of(Layout::balanced(), with_mask(kSeq, Mask::causal()), world);
    EXPECT_LE(b.slowest, 1.1) << "world " << world;
    EXPECT_LE(b.token_spread, 16) << "world " << world;
    EXPECT_LE(b.ranges, 12.0) << "world " << world;
  }
}

TEST(BalancedLayout, CutsFinerWhereOneShortDocumentIsMostOfTheArea) {
  for (const int world : {4, 16, 64}) {
    for (const std::int64_t share : {4, 8, 16}) {
      for (const bool causal : {true, false}) {
        std::vector<std::int64_t> lengths(static_cast<std::size_t>(kSeq - kSeq / share) / 16, 16);
        lengths.insert(lengths.begin() + 100, kSeq / share);
        const Balance b = balance_of(Layout::balanced(),
                                     with_mask(kSeq, Mask::documents(lengths, causal)), world);
        SCOPED_TRACE(fmt::format("world {} share 1/{} causal {}: {:.3f}, {:.1f} ranges", world,
                                 share, causal, b.slowest, b.ranges));
        EXPECT_LE(b.slowest, 1.1);
        EXPECT_LE(b.token_spread, 256);
      }
    }
  }
}

TEST(BalancedLayout, EvensOutWindowsAndPrefixes) {
  for (const int world : {3, 8, 64}) {
    for (const Mask& mask : {Mask::causal() & Mask::window(4096), Mask::prefix(20000)}) {
      const Balance b = balance_of(Layout::balanced(), with_mask(kSeq, mask), world);
      EXPECT_LE(b.slowest, 1.1) << mask.name() << " world " << world;
    }
  }
}

TEST(BalancedLayout, KeepsNeighboursTogetherWhereNothingIsToBalance) {
  for (const int world : {1, 3, 8, 64}) {
    const Sharding s = solve_layout(Layout::balanced(), with_mask(kSeq, Mask::full()), world);
    for (int r = 0; r < world; ++r) EXPECT_EQ(s.shard(r).size(), 1U) << "rank " << r;
  }
}

TEST(BalancedLayout, KeepsTheKeysOfATokenWithItsQuery) {
  const Sharding s = solve_layout(Layout::balanced(), with_mask(1000, Mask::causal()), 7);
  for (int r = 0; r < 7; ++r) EXPECT_EQ(s.positions(r), s.positions_kv(r));
}

}  // namespace
}  // namespace annulus
