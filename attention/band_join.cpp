#include "attention/band_join.h"

#include <cstddef>
#include <utility>

namespace annulus::attn {
namespace {

Affine shifted(Affine a, std::int64_t rows) { return {a.at(rows), a.step}; }

bool continues(const Band& a, const Band& b) {
  if (a.count != b.count) return false;
  for (int i = 0; i < a.count; ++i) {
    const AffineInterval& x = a.intervals[static_cast<std::size_t>(i)];
    const AffineInterval& y = b.intervals[static_cast<std::size_t>(i)];
    if (shifted(x.lo, a.rows()).base != y.lo.base || shifted(x.hi, a.rows()).base != y.hi.base ||
        x.lo.step != y.lo.step || x.hi.step != y.hi.step) {
      return false;
    }
  }
  return true;
}

/// A single row has no step of its own: it takes the one that continues its neighbour.
bool adopt_step(Band& a, const Band& b) {
  if (a.count != b.count || a.rows() != 1 || b.rows() != 1) return false;
  Band grown = a;
  for (int i = 0; i < a.count; ++i) {
    AffineInterval& x = grown.intervals[static_cast<std::size_t>(i)];
    const AffineInterval& y = b.intervals[static_cast<std::size_t>(i)];
    x.lo.step = y.lo.base - x.lo.base;
    x.hi.step = y.hi.base - x.hi.base;
    if (x.lo.step < 0 || x.lo.step > 1 || x.hi.step < 0 || x.hi.step > 1) return false;
  }
  grown.end = b.end;
  a = grown;
  return true;
}

bool extends_by_row(Band& a, const Band& b) {
  if (b.rows() != 1 || a.count != b.count) return false;
  for (int i = 0; i < a.count; ++i) {
    const AffineInterval& x = a.intervals[static_cast<std::size_t>(i)];
    const AffineInterval& y = b.intervals[static_cast<std::size_t>(i)];
    if (x.lo.at(a.rows()) != y.lo.base || x.hi.at(a.rows()) != y.hi.base) return false;
  }
  a.end = b.end;
  return true;
}

/// The interval whose first two rows are a and b; false if it does not move evenly.
bool moves(const KeyInterval& a, const KeyInterval& b, AffineInterval& moving) {
  moving = {{a.begin, b.begin - a.begin}, {a.end, b.end - a.end}};
  return moving.lo.step >= 0 && moving.lo.step <= 1 && moving.hi.step >= 0 && moving.hi.step <= 1;
}

/// Two rows of many keys: what differs moves, at most two of them; the rest stays fixed.
bool adopt_moving(Band& a, const Band& b) {
  const std::span<const KeyInterval> x = a.fixed_keys();
  const std::span<const KeyInterval> y = b.fixed_keys();
  if (x.size() != y.size()) return false;
  Band grown{a.begin, b.end, 0, {}, a.fixed};
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (x[i] == y[i]) continue;
    if (grown.count == 2) return false;
    if (!moves(x[i], y[i], grown.intervals[static_cast<std::size_t>(grown.count)])) return false;
    ++grown.count;
  }
  if (grown.count > 0) {
    std::vector<KeyInterval> fixed;
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (x[i] == y[i]) fixed.push_back(x[i]);
    }
    grown.fixed = std::make_shared<const std::vector<KeyInterval>>(std::move(fixed));
  }
  a = std::move(grown);
  return true;
}

/// True if `row`, the one behind a, sees a's fixed keys and what a's intervals come to there.
bool foresees(const Band& a, const Band& row) {
  const std::span<const KeyInterval> fixed = a.fixed_keys();
  const std::span<const KeyInterval> seen = row.fixed_keys();
  const auto count = static_cast<std::size_t>(a.count);
  if (seen.size() != fixed.size() + count) return false;
  std::size_t f = 0;
  std::size_t m = 0;
  for (const KeyInterval& k : seen) {
    if (f < fixed.size() && k == fixed[f]) {
      ++f;
    } else if (m < count &&
               k == KeyInterval{a.intervals[m].lo.at(a.rows()), a.intervals[m].hi.at(a.rows())}) {
      ++m;
    } else {
      return false;
    }
  }
  return true;
}

bool grow_with_fixed(Band& a, const Band& b) {
  if (b.rows() != 1 || b.count != 0) return false;
  if (a.rows() == 1 && a.count == 0) return adopt_moving(a, b);
  if (!foresees(a, b)) return false;
  a.end = b.end;
  return true;
}

bool grow(Band& a, const Band& b) {
  if (a.end != b.begin || (a.fixed == nullptr) != (b.fixed == nullptr)) return false;
  if (a.fixed) return grow_with_fixed(a, b);
  if (continues(a, b)) {
    a.end = b.end;
    return true;
  }
  return (a.rows() > 1 && extends_by_row(a, b)) || adopt_step(a, b);
}

}  // namespace

void append_joined(const Band& band, std::vector<Band>& bands) {
  if (band.rows() == 0) return;
  if (bands.empty() || !grow(bands.back(), band)) bands.push_back(band);
}

std::vector<Band> joined(const std::vector<Band>& bands) {
  std::vector<Band> out;
  for (const Band& band : bands) append_joined(band, out);
  return out;
}

}  // namespace annulus::attn
