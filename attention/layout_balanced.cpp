#include "attention/layout_balanced.h"

#include "attention/bands.h"

#include <algorithm>
#include <cstdlib>
#include <set>
#include <utility>

namespace annulus::attn {
namespace {

/// Chunks a rank holds: many enough to even out one long document, few enough that key segments
/// stay long.
constexpr std::int64_t kChunksPerRank = 16;
/// Stop when the heaviest rank is within 1/50 of the mean.
constexpr std::int64_t kTolerance = 50;

struct Chunk {
  TokenRange range;
  std::int64_t area = 0;
};

std::vector<Chunk> cut_chunks(const Problem& p, std::int64_t count) {
  const std::vector<Band> bands = compile_bands(p);
  std::vector<Chunk> chunks;
  std::int64_t begin = 0;
  for (std::int64_t c = 0; c < count; ++c) {
    const std::int64_t end = p.seq / count * (c + 1) + p.seq % count * (c + 1) / count;
    chunks.push_back({{begin, end - begin, 1}, count_pairs(bands, begin, end)});
    begin = end;
  }
  return chunks;
}

/// Chunk numbers by rank, and each rank's area.
struct Deal {
  std::vector<std::vector<std::size_t>> chunks;
  std::vector<std::int64_t> load;
};

struct Swap {
  std::size_t heavy = 0;  ///< places in the two ranks' lists
  std::size_t light = 0;
  std::int64_t moved = 0;
};

/// The swap that moves the area closest to `wanted` from the heavy to the light rank. Of equals the
/// first is taken, so that the result does not depend on anything else.
Swap best_swap(const std::vector<Chunk>& chunks, const std::vector<std::size_t>& heavy,
               const std::vector<std::size_t>& light, std::int64_t wanted) {
  Swap best;
  std::int64_t miss = -1;
  for (std::size_t i = 0; i < heavy.size(); ++i) {
    for (std::size_t j = 0; j < light.size(); ++j) {
      const std::int64_t moved = chunks[heavy[i]].area - chunks[light[j]].area;
      const std::int64_t off = std::abs(moved - wanted);
      if (moved > 0 && (miss < 0 || off < miss)) {
        best = {i, j, moved};
        miss = off;
      }
    }
  }
  return best;
}

/// Swaps until even, or until the extremes cannot improve each other.
void even_out(const std::vector<Chunk>& chunks, Deal& deal, std::int64_t mean) {
  std::set<std::pair<std::int64_t, std::size_t>> order;
  for (std::size_t r = 0; r < deal.load.size(); ++r) order.insert({deal.load[r], r});
  const std::size_t limit = 4 * chunks.size();
  for (std::size_t n = 0; n < limit; ++n) {
    const auto [low, light] = *order.begin();
    const auto [high, heavy] = *order.rbegin();
    if ((high - mean) * kTolerance <= mean) return;
    const std::int64_t gap = high - low;
    const std::int64_t wanted = std::max(std::int64_t{1}, std::min(high - mean, mean - low));
    const Swap swap = best_swap(chunks, deal.chunks[heavy], deal.chunks[light], wanted);
    if (swap.moved <= 0 || swap.moved >= gap) return;
    std::swap(deal.chunks[heavy][swap.heavy], deal.chunks[light][swap.light]);
    order.erase({low, light});
    order.erase({high, heavy});
    deal.load[heavy] -= swap.moved;
    deal.load[light] += swap.moved;
    order.insert({deal.load[light], light});
    order.insert({deal.load[heavy], heavy});
  }
}

}  // namespace

std::vector<Shard> balanced_shards(const Problem& problem, int world) {
  const auto ranks = static_cast<std::size_t>(world);
  const std::int64_t count = std::clamp(problem.seq, std::int64_t{1}, kChunksPerRank * world);
  const std::vector<Chunk> chunks = cut_chunks(problem, count);
  Deal deal{std::vector<std::vector<std::size_t>>(ranks), std::vector<std::int64_t>(ranks, 0)};
  std::int64_t total = 0;
  for (std::size_t c = 0; c < chunks.size(); ++c) {
    const std::size_t rank = c * ranks / chunks.size();
    deal.chunks[rank].push_back(c);
    deal.load[rank] += chunks[c].area;
    total += chunks[c].area;
  }
  even_out(chunks, deal, total / world);

  std::vector<Shard> shards(ranks);
  for (std::size_t r = 0; r < ranks; ++r) {
    std::sort(deal.chunks[r].begin(), deal.chunks[r].end());
    for (const std::size_t c : deal.chunks[r]) {
      const TokenRange& range = chunks[c].range;
      Shard& shard = shards[r];
      if (range.count == 0) continue;
      if (!shard.empty() && shard.back().begin + shard.back().count == range.begin) {
        shard.back().count += range.count;
      } else {
        shard.push_back(range);
      }
    }
  }
  return shards;
}

}  // namespace annulus::attn
