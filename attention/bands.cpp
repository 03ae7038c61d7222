#include "attention/bands.h"

#include "attention/band_join.h"
#include "attention/band_rows.h"

#include <annulus/reference.h>

#include <algorithm>
#include <utility>

namespace annulus::attn {
namespace {

/// Far outside any sequence, yet safe to add to.
constexpr std::int64_t kFar = std::int64_t{1} << 60;

Affine shifted(Affine a, std::int64_t rows) { return {a.at(rows), a.step}; }

Band slice(const Band& band, std::int64_t begin, std::int64_t end) {
  Band part = band;
  part.begin = begin;
  part.end = end;
  for (AffineInterval& i : part.intervals) {
    i.lo = shifted(i.lo, begin - band.begin);
    i.hi = shifted(i.hi, begin - band.begin);
  }
  return part;
}

Band one_interval(std::int64_t begin, std::int64_t end, Affine lo, Affine hi) {
  Band band{begin, end, 1, {}};
  band.intervals[0] = {lo, hi};
  return band;
}

/// Cuts around the row (counted from the band's first) at which a and b meet: before it, after it
/// and at it each order is constant.
void add_crossing(Affine a, Affine b, std::int64_t rows, std::vector<std::int64_t>& cuts) {
  if (a.step == b.step) return;
  const std::int64_t meet = (b.base - a.base) / (a.step - b.step);
  for (const std::int64_t row : {meet, meet + 1}) {
    if (row > 0 && row < rows) cuts.push_back(row);
  }
}

/// Bounds of one term, before clamping: one interval a band, which may be empty.
struct TermBands {
  const Problem& p;

  std::int64_t shift(CausalAlign align) const {
    return align == CausalAlign::bottom_right ? *p.seq_kv - p.seq : 0;
  }
  std::vector<Band> operator()(const Mask::Causal& c) const {
    return {one_interval(0, p.seq, {0, 0}, {shift(c.align) + 1, 1})};
  }
  std::vector<Band> operator()(const Mask::Window& w) const {
    const std::int64_t s = shift(w.align);
    const Affine lo = w.left < 0 ? Affine{-kFar, 0} : Affine{s - std::min(w.left, kFar), 1};
    const Affine hi = w.right < 0 ? Affine{kFar, 0} : Affine{s + std::min(w.right, kFar) + 1, 1};
    return {one_interval(0, p.seq, lo, hi)};
  }
  std::vector<Band> operator()(const Mask::Documents& d) const {
    std::vector<Band> bands;
    std::int64_t begin = 0;
    for (const std::int64_t length : d.lengths) {
      const std::int64_t end = begin + length;
      const Affine hi = d.causal ? Affine{begin + 1, 1} : Affine{end, 0};
      if (length > 0) bands.push_back(one_interval(begin, end, {begin, 0}, hi));
      begin = end;
    }
    return bands;
  }
  std::vector<Band> operator()(const Mask::Prefix& x) const {
    // Row i sees [0, max(length, i + shift + 1)): the bound turns at one row.
    const Affine diagonal{shift(x.align) + 1, 1};
    const std::int64_t length = std::min(x.length, kFar);
    const std::int64_t turn = std::clamp(length - diagonal.base, std::int64_t{0}, p.seq);
    std::vector<Band> bands;
    if (turn > 0) bands.push_back(one_interval(0, turn, {0, 0}, {length, 0}));
    if (turn < p.seq) {
      bands.push_back(one_interval(turn, p.seq, {0, 0}, shifted(diagonal, turn)));
    }
    return bands;
  }
  /// Ids that each lie in one run of keys. Others are row terms.
  std::vector<Band> operator()(const Mask::Segments& s) const {
    const SegmentKeys keys(s);
    std::vector<Band> bands;
    for (std::size_t begin = 0, end = 0; begin < s.ids.size(); begin = end) {
      while (end < s.ids.size() && s.ids[end] == s.ids[begin]) ++end;
      Band band{static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end)};
      if (const auto seen = keys.of(s.ids[begin]); !seen.empty()) {
        band.count = 1;
        band.intervals[0] = {{seen[0].begin, 0}, {seen[0].end, 0}};
      }
      bands.push_back(band);
    }
    return bands;
  }
  /// Row terms, which cut_rows meets.
  std::vector<Band> operator()(const Mask::Rows&) const { return anything(); }
  std::vector<Band> operator()(const Mask::Lists&) const { return anything(); }
  std::vector<Band> anything() const { return {one_interval(0, p.seq, {-kFar, 0}, {kFar, 0})}; }
};

Affine upper(Affine a, Affine b) {
  return a.base > b.base || (a.base == b.base && a.step > b.step) ? a : b;
}
Affine lower(Affine a, Affine b) {
  return a.base < b.base || (a.base == b.base && a.step < b.step) ? a : b;
}

/// Both bands hold the same rows and at most one interval, and no bounds cross inside them, so
/// comparing the first row (and, where equal, the step) orders them everywhere.
Band intersect_even(const Band& a, const Band& b) {
  Band both{a.begin, a.end, 0, {}};
  if (a.count == 0 || b.count == 0) return both;
  const AffineInterval& x = a.intervals[0];
  const AffineInterval& y = b.intervals[0];
  const AffineInterval cut{upper(x.lo, y.lo), lower(x.hi, y.hi)};
  if (cut.lo.base >= cut.hi.base) return both;
  both.intervals[0] = cut;
  both.count = 1;
  return both;
}

/// Intersects two bands over the same rows, splitting wherever two bounds cross.
void intersect_rows(const Band& a, const Band& b, std::vector<Band>& out) {
  std::vector<Affine> bounds;
  for (const Band* band : {&a, &b}) {
    for (int i = 0; i < band->count; ++i) {
      bounds.push_back(band->intervals[static_cast<std::size_t>(i)].lo);
      bounds.push_back(band->intervals[static_cast<std::size_t>(i)].hi);
    }
  }
  std::vector<std::int64_t> cuts{0, a.rows()};
  for (std::size_t i = 0; i < bounds.size(); ++i) {
    for (std::size_t j = i + 1; j < bounds.size(); ++j) {
      add_crossing(bounds[i], bounds[j], a.rows(), cuts);
    }
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    const std::int64_t begin = a.begin + cuts[i];
    const std::int64_t end = a.begin + cuts[i + 1];
    out.push_back(intersect_even(slice(a, begin, end), slice(b, begin, end)));
  }
}

std::vector<Band> intersect(const std::vector<Band>& a, const std::vector<Band>& b) {
  std::vector<Band> out;
  std::size_t i = 0;
  std::size_t j = 0;
  while (i < a.size() && j < b.size()) {
    const std::int64_t begin = std::max(a[i].begin, b[j].begin);
    const std::int64_t end = std::min(a[i].end, b[j].end);
    if (begin < end) intersect_rows(slice(a[i], begin, end), slice(b[j], begin, end), out);
    if (a[i].end == end) ++i;
    if (j < b.size() && b[j].end == end) ++j;
  }
  return out;
}

/// Sum of at(r) over rows [r0, r1).
std::int64_t series(Affine a, std::int64_t r0, std::int64_t r1) {
  return (r1 - r0) * a.base + a.step * ((r0 + r1 - 1) * (r1 - r0) / 2);
}

}  // namespace

std::vector<Band> compile_bands(const Problem& problem) {
  if (problem.seq == 0) return {};
  // The clamp to [0, seq_kv) comes first: intersecting keeps every later bound inside it.
  std::vector<Band> bands{one_interval(0, problem.seq, {0, 0}, {*problem.seq_kv, 0})};
  if (*problem.seq_kv == 0) bands[0].count = 0;
  std::vector<RowKeys> rows;
  for (const Mask::Term& term : problem.mask.terms()) {
    if (RowKeys keys = row_keys_of(term)) {
      rows.push_back(std::move(keys));
    } else {
      bands = joined(intersect(bands, std::visit(TermBands{problem}, term)));
    }
  }
  return rows.empty() ? bands : cut_rows(bands, rows);
}

std::int64_t count_pairs(const std::vector<Band>& bands, std::int64_t begin, std::int64_t end) {
  auto band = std::partition_point(bands.begin(), bands.end(),
                                   [&](const Band& b) { return b.end <= begin; });
  std::int64_t pairs = 0;
  for (; band != bands.end() && band->begin < end; ++band) {
    const std::int64_t r0 = std::max(begin, band->begin) - band->begin;
    const std::int64_t r1 = std::min(end, band->end) - band->begin;
    for (int i = 0; i < band->count; ++i) {
      const AffineInterval& x = band->intervals[static_cast<std::size_t>(i)];
      pairs += series(x.hi, r0, r1) - series(x.lo, r0, r1);
    }
    for (const KeyInterval& k : band->fixed_keys()) pairs += (r1 - r0) * (k.end - k.begin);
  }
  return pairs;
}

}  // namespace annulus::attn

namespace annulus {

KeyLists compile_mask(const Problem& problem) {
  const Problem p = resolved(problem);
  KeyLists rows;
  std::vector<KeyInterval> row;
  for (const attn::Band& band : attn::compile_bands(p)) {
    for (std::int64_t r = 0; r < band.rows(); ++r) {
      row.assign(band.fixed_keys().begin(), band.fixed_keys().end());
      for (std::size_t i = 0; i < static_cast<std::size_t>(band.count); ++i) {
        row.push_back({band.intervals[i].lo.at(r), band.intervals[i].hi.at(r)});
      }
      if (band.fixed) std::ranges::sort(row, {}, &KeyInterval::begin);
      rows.add_row(row);
    }
  }
  return rows;
}

}  // namespace annulus
