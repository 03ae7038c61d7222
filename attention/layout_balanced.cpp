#include "attention/layout_balanced.h"

#include "attention/bands.h"

#include <algorithm>
#include <cstdlib>
#include <set>
#include <utility>

namespace annulus::attn {
namespace {

/// Chunks a rank holds: few, so that key segments stay long, unless the area lies in so few of them
/// that they are too coarse to even it out.
constexpr std::int64_t kFewestChunks = 16;
constexpr std::int64_t kMostChunks = 256;
/// Stop when the heaviest rank is within 1/50 of the mean; finer chunks are tried from 1/12 on.
constexpr std::int64_t kTolerance = 50;
constexpr std::int64_t kCoarse = 12;

struct Chunk {
  TokenRange range;
  std::int64_t area = 0;
};

std::vector<Chunk> cut_chunks(const std::vector<Band>& bands, std::int64_t seq,
                              std::int64_t count) {
  std::vector<Chunk> chunks;
  std::int64_t begin = 0;
  for (std::int64_t c = 0; c < count; ++c) {
    const std::int64_t end = seq / count * (c + 1) + seq % count * (c + 1) / count;
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

Deal deal_chunks(const std::vector<Chunk>& chunks, std::size_t ranks) {
  Deal deal{std::vector<std::vector<std::size_t>>(ranks), std::vector<std::int64_t>(ranks, 0)};
  std::int64_t total = 0;
  for (std::size_t c = 0; c < chunks.size(); ++c) {
    const std::size_t rank = c * ranks / chunks.size();
    deal.chunks[rank].push_back(c);
    deal.load[rank] += chunks[c].area;
    total += chunks[c].area;
  }
  even_out(chunks, deal, total / static_cast<std::int64_t>(ranks));
  for (auto& list : deal.chunks) std::sort(list.begin(), list.end());
  return deal;
}

std::vector<Shard> shards_of(const std::vector<Chunk>& chunks, const Deal& deal) {
  std::vector<Shard> shards;
  for (const auto& list : deal.chunks) {
    Shard& shard = shards.emplace_back();
    for (const std::size_t c : list) {
      const TokenRange& range = chunks[c].range;
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

}  // namespace

std::vector<Shard> balanced_shards(const Problem& problem, int world) {
  const std::vector<Band> bands = compile_bands(problem);
  const std::int64_t mean = count_pairs(bands, 0, problem.seq) / world;
  std::vector<Shard> best;
  std::int64_t least = -1;
  for (std::int64_t each = kFewestChunks; each <= kMostChunks; each *= 2) {
    const std::int64_t count = std::clamp(problem.seq, std::int64_t{1}, each * world);
    const std::vector<Chunk> chunks = cut_chunks(bands, problem.seq, count);
    const Deal deal = deal_chunks(chunks, static_cast<std::size_t>(world));
    const std::int64_t slowest = *std::max_element(deal.load.begin(), deal.load.end());
    if (least < 0 || slowest < least) {
      best = shards_of(chunks, deal);
      least = slowest;
    }
    if ((least - mean) * kCoarse <= mean || count == problem.seq) break;
  }
  return best;
}

}  // namespace annulus::attn
