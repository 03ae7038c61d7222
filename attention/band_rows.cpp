#include "attention/band_rows.h"

#include "attention/band_join.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

namespace annulus::attn {
namespace {

/// Of all bands together: 1 GiB of them.
constexpr std::int64_t kMostFixed = std::int64_t{1} << 26;

/// Both ascend; the result is compiled: no empty ones, none that touch.
std::vector<KeyInterval> intersect(std::span<const KeyInterval> a, std::span<const KeyInterval> b) {
  std::vector<KeyInterval> both;
  for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    if (b[j].begin >= b[j].end) {
      ++j;
      continue;
    }
    const KeyInterval cut{std::max(a[i].begin, b[j].begin), std::min(a[i].end, b[j].end)};
    if (cut.begin < cut.end) {
      if (!both.empty() && both.back().end == cut.begin) {
        both.back().end = cut.end;
      } else {
        both.push_back(cut);
      }
    }
    a[i].end < b[j].end ? ++i : ++j;
  }
  return both;
}

Band band_of(std::int64_t query, std::vector<KeyInterval> sees) {
  Band band{query, query + 1};
  if (sees.size() > 2) {
    band.fixed = std::make_shared<const std::vector<KeyInterval>>(std::move(sees));
    return band;
  }
  band.count = static_cast<int>(sees.size());
  for (std::size_t i = 0; i < sees.size(); ++i) {
    band.intervals[i] = {{sees[i].begin, 0}, {sees[i].end, 0}};
  }
  return band;
}

}  // namespace

SegmentKeys::SegmentKeys(const Mask::Segments& segments) {
  const std::vector<std::int64_t>& ids = segments.ids_kv.empty() ? segments.ids : segments.ids_kv;
  for (std::size_t begin = 0, end = 0; begin < ids.size(); begin = end) {
    while (end < ids.size() && ids[end] == ids[begin]) ++end;
    if (ids[begin] < 0) continue;
    std::vector<KeyInterval>& runs = runs_[ids[begin]];
    runs.push_back({static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end)});
    one_run_each_ = one_run_each_ && runs.size() == 1;
  }
}

std::span<const KeyInterval> SegmentKeys::of(std::int64_t id) const {
  const auto found = runs_.find(id);
  return found == runs_.end() ? std::span<const KeyInterval>() : found->second;
}

RowKeys row_keys_of(const Mask::Term& term) {
  if (const auto* rows = std::get_if<Mask::Rows>(&term)) {
    return [rows](std::int64_t query) -> std::span<const KeyInterval> {
      return rows->intervals[static_cast<std::size_t>(query)];
    };
  }
  if (const auto* lists = std::get_if<Mask::Lists>(&term)) {
    return [lists](std::int64_t query) { return lists->rows->row(query); };
  }
  if (const auto* segments = std::get_if<Mask::Segments>(&term)) {
    auto keys = std::make_shared<const SegmentKeys>(*segments);
    if (keys->one_run_each()) return {};
    return [keys, segments](std::int64_t query) {
      return keys->of(segments->ids[static_cast<std::size_t>(query)]);
    };
  }
  return {};
}

std::vector<Band> cut_rows(const std::vector<Band>& bands, const std::vector<RowKeys>& terms) {
  std::vector<Band> out;
  std::int64_t fixed = 0;
  for (const Band& band : bands) {
    for (std::int64_t r = 0; r < band.rows(); ++r) {
      const std::int64_t query = band.begin + r;
      std::vector<KeyInterval> sees;
      if (band.count > 0) sees = {{band.intervals[0].lo.at(r), band.intervals[0].hi.at(r)}};
      for (const RowKeys& term : terms) sees = intersect(sees, term(query));
      const auto before = out.size();
      append_joined(band_of(query, std::move(sees)), out);
      if (out.size() > before) fixed += static_cast<std::int64_t>(out.back().fixed_keys().size());
      if (fixed > kMostFixed) {
        throw Unsupported(fmt::format(
            "mask: queries 0 to {} see more than {} key intervals together; no more are held",
            query, kMostFixed));
      }
    }
  }
  return out;
}

}  // namespace annulus::attn
