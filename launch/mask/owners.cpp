#include "launch/mask/owners.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

namespace annulus::launch {
namespace {

using Colour = std::array<double, 3>;

// Okabe and Ito, "Color universal design" (2008); their black is a grey here, beside black frames.
constexpr std::array<const char*, 8> kCategories{"#e69f00", "#56b4e9", "#009e73", "#cc79a7",
                                                 "#d55e00", "#0072b2", "#f0e442", "#8a8a8a"};
// Points of viridis (van der Walt and Smith 2015).
constexpr std::array<Colour, 5> kViridis{
    {{68, 1, 84}, {59, 82, 139}, {33, 145, 140}, {94, 201, 98}, {253, 231, 37}}};

}  // namespace

std::vector<OwnedSpan> owned_spans(const std::vector<Shard>& shards, std::int64_t seq,
                                   std::int64_t cell) {
  std::vector<std::set<int>> owners(static_cast<std::size_t>((seq + cell - 1) / cell));
  for (std::size_t rank = 0; rank < shards.size(); ++rank) {
    for (const TokenRange& range : shards[rank]) {
      if (range.count == 0) continue;
      // Steps of a whole cell where a cell holds several tokens of the range.
      const std::int64_t skip = std::max<std::int64_t>(1, cell / range.stride);
      const auto mark = [&](std::int64_t i) {
        owners[static_cast<std::size_t>(range.position(i) / cell)].insert(static_cast<int>(rank));
      };
      for (std::int64_t i = 0; i < range.count; i += skip) mark(i);
      mark(range.count - 1);
    }
  }
  std::vector<OwnedSpan> spans;
  for (std::size_t c = 0; c < owners.size(); ++c) {
    const std::int64_t begin = static_cast<std::int64_t>(c) * cell;
    const std::vector<int> ranks(owners[c].begin(), owners[c].end());
    const std::int64_t end = std::min(seq, begin + cell);
    if (!spans.empty() && spans.back().ranks == ranks) {
      spans.back().end = end;
    } else {
      spans.push_back({begin, end, ranks});
    }
  }
  return spans;
}

std::string rank_colour(int rank, int world) {
  if (world <= static_cast<int>(kCategories.size())) {
    return kCategories.at(static_cast<std::size_t>(rank));
  }
  const double at = static_cast<double>(rank) / (world - 1) * (kViridis.size() - 1);
  const auto low = std::min(static_cast<std::size_t>(at), kViridis.size() - 2);
  const double part = at - static_cast<double>(low);
  std::array<int, 3> rgb{};
  for (std::size_t i = 0; i < 3; ++i) {
    rgb.at(i) = static_cast<int>(
        std::lround(kViridis.at(low).at(i) * (1 - part) + kViridis.at(low + 1).at(i) * part));
  }
  return fmt::format("#{:02x}{:02x}{:02x}", rgb[0], rgb[1], rgb[2]);
}

}  // namespace annulus::launch
