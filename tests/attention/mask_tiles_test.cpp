// Tiles of a mask against brute force, and that a long mask costs little.

#include "tests/attention/brute_mask.h"
#include "tests/attention/random_request.h"

#include <annulus/error.h>
#include <annulus/layout.h>
#include <annulus/mask_tiles.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>

namespace annulus::test {
namespace {

enum Kind : char { kEmpty = '.', kPartial = 'o', kFull = '#' };

/// One character a tile.
std::string brute_row(const BruteMask& mask, std::int64_t row, std::int64_t tile_q,
                      std::int64_t tile_k) {
  std::string kinds;
  for (std::int64_t k = 0; k < mask.seq_kv(); k += tile_k) {
    std::int64_t seen = 0;
    std::int64_t all = 0;
    for (std::int64_t i = row * tile_q; i < std::min(mask.seq(), (row + 1) * tile_q); ++i) {
      for (std::int64_t j = k; j < std::min(mask.seq_kv(), k + tile_k); ++j, ++all) {
        seen += mask.sees(i, j) ? 1 : 0;
      }
    }
    kinds += seen == 0 ? kEmpty : seen == all ? kFull : kPartial;
  }
  return kinds;
}

std::string drawn(const MaskTiles& tiles, std::int64_t row) {
  std::string kinds(static_cast<std::size_t>(tiles.columns()), kEmpty);
  for (const TileRun& run : tiles.runs(row)) {
    for (std::int64_t t = run.begin; t < run.end; ++t) {
      kinds.at(static_cast<std::size_t>(t)) = run.full ? kFull : kPartial;
    }
  }
  return kinds;
}

TEST(MaskTiles, MatchBruteForceForRandomMasks) {
  int checked = 0;
  for (std::uint64_t seed = 0; seed < 1500; ++seed) {
    Random random(seed);
    const Problem problem = resolved(random_problem(random, 70, 2));
    const BruteMask brute(problem);
    if (brute.most_runs() > 2 || problem.seq == 0 || *problem.seq_kv == 0) continue;
    const auto tile_q = random.any_of<std::int64_t>({1, 2, 5, 8, 64, 100});
    const auto tile_k = random.any_of<std::int64_t>({1, 2, 5, 8, 64, 100});
    const MaskTiles tiles(problem, tile_q, tile_k);
    TileCounts counts;
    for (std::int64_t row = 0; row < tiles.rows(); ++row) {
      const std::string expected = brute_row(brute, row, tile_q, tile_k);
      ASSERT_EQ(drawn(tiles, row), expected)
          << fmt::format("seed {} mask {} seq {} seq_kv {} tile {}x{} row {}", seed,
                         problem.mask.name(), problem.seq, *problem.seq_kv, tile_q, tile_k, row);
      counts.full += std::ranges::count(expected, kFull);
      counts.partial += std::ranges::count(expected, kPartial);
      counts.empty += std::ranges::count(expected, kEmpty);
    }
    EXPECT_EQ(tiles.count(), counts) << "seed " << seed;
    ++checked;
  }
  EXPECT_GT(checked, 1000);
}

TEST(MaskTiles, CountAMillionTokensInASecond) {
  const std::int64_t seq = std::int64_t{1} << 20;
  const auto start = std::chrono::steady_clock::now();
  const MaskTiles tiles({.seq = seq, .mask = Mask::causal()}, 128, 128);
  const std::int64_t n = seq / 128;
  EXPECT_EQ(tiles.count(), (TileCounts{n * (n - 1) / 2, n, n * (n - 1) / 2}));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  EXPECT_LT(took.count(), 1.0);
}

TEST(MaskTiles, RefusesATileOfNothing) {
  EXPECT_THROW(MaskTiles({.seq = 8}, 0, 4), InvalidArgument);
  EXPECT_THROW(MaskTiles({.seq = 8}, 4, 4).runs(2), InvalidArgument);
}

}  // namespace
}  // namespace annulus::test
