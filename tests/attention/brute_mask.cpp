#include "tests/attention/brute_mask.h"

#include <algorithm>
#include <numeric>

namespace annulus::test {
namespace {

struct Allows {
  const Problem& p;
  std::int64_t i;
  std::int64_t j;

  std::int64_t aligned(CausalAlign align) const {
    return align == CausalAlign::bottom_right ? i + *p.seq_kv - p.seq : i;
  }
  bool operator()(const Mask::Causal& c) const { return j <= aligned(c.align); }
  bool operator()(const Mask::Window& w) const {
    const std::int64_t at = aligned(w.align);
    return (w.left < 0 || at - w.left <= j) && (w.right < 0 || j <= at + w.right);
  }
  bool operator()(const Mask::Documents& d) const {
    std::int64_t begin = 0;
    for (const std::int64_t length : d.lengths) {
      const std::int64_t end = begin + length;
      if (begin <= i && i < end) return begin <= j && j < end && (!d.causal || j <= i);
      begin = end;
    }
    return false;
  }
  bool operator()(const Mask::Prefix& x) const { return j < x.length || j <= aligned(x.align); }
  bool operator()(const Mask::Rows& r) const {
    const RowIntervals& row = r.intervals[static_cast<std::size_t>(i)];
    return std::any_of(row.begin(), row.end(),
                       [&](const KeyInterval& k) { return k.begin <= j && j < k.end; });
  }
  bool operator()(const Mask::Lists& l) const {
    const auto row = l.rows->row(i);
    return std::any_of(row.begin(), row.end(),
                       [&](const KeyInterval& k) { return k.begin <= j && j < k.end; });
  }
  bool operator()(const Mask::Segments& s) const {
    const std::vector<std::int64_t>& ids_kv = s.ids_kv.empty() ? s.ids : s.ids_kv;
    const std::int64_t id = s.ids[static_cast<std::size_t>(i)];
    return id >= 0 && id == ids_kv[static_cast<std::size_t>(j)];
  }
};

}  // namespace

BruteMask::BruteMask(const Problem& resolved)
    : seq_(resolved.seq),
      seq_kv_(*resolved.seq_kv),
      allowed_(static_cast<std::size_t>(seq_ * seq_kv_), 0) {
  for (std::int64_t i = 0; i < seq_; ++i) {
    for (std::int64_t j = 0; j < seq_kv_; ++j) {
      bool all = true;
      for (const Mask::Term& term : resolved.mask.terms()) {
        all = all && std::visit(Allows{resolved, i, j}, term);
      }
      allowed_[static_cast<std::size_t>(i * seq_kv_ + j)] = all ? 1 : 0;
    }
  }
}

std::vector<KeyInterval> BruteMask::runs(std::int64_t query) const {
  std::vector<KeyInterval> runs;
  for (std::int64_t j = 0; j < seq_kv_; ++j) {
    if (!sees(query, j)) continue;
    if (!runs.empty() && runs.back().end == j) {
      ++runs.back().end;
    } else {
      runs.push_back({j, j + 1});
    }
  }
  return runs;
}

std::int64_t BruteMask::pairs() const {
  return std::accumulate(allowed_.begin(), allowed_.end(), std::int64_t{0});
}

std::size_t BruteMask::most_runs() const {
  std::size_t most = 0;
  for (std::int64_t i = 0; i < seq_; ++i) most = std::max(most, runs(i).size());
  return most;
}

}  // namespace annulus::test
