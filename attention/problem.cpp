#include <annulus/error.h>
#include <annulus/problem.h>

#include <fmt/format.h>

#include <cmath>
#include <numeric>

namespace annulus {
namespace {

void require(bool holds, const std::string& text) {
  if (!holds) throw InvalidArgument(text);
}

/// Sizes stay below 2^40, so that products of any two fit 64 bits.
constexpr std::int64_t kLimit = std::int64_t{1} << 40;

void check_size(const char* name, std::int64_t value, std::int64_t least) {
  require(value >= least && value < kLimit,
          fmt::format("{} {}: must be >= {} and < 2^40", name, value, least));
}

struct CheckTerm {
  const Problem& p;

  void operator()(const Mask::Causal&) const {}
  void operator()(const Mask::Window&) const {}
  void operator()(const Mask::Prefix&) const {}
  void operator()(const Mask::Documents& d) const {
    const std::int64_t sum = std::accumulate(d.lengths.begin(), d.lengths.end(), std::int64_t{0});
    require(sum == p.seq, fmt::format("documents: lengths sum to {}, seq is {}", sum, p.seq));
    require(*p.seq_kv == p.seq,
            fmt::format("documents: seq_kv {} must equal seq {}", *p.seq_kv, p.seq));
  }
  void operator()(const Mask::Rows& r) const {
    require(static_cast<std::int64_t>(r.intervals.size()) == p.seq,
            fmt::format("mask rows: {} entries for seq {}", r.intervals.size(), p.seq));
    for (std::size_t i = 0; i < r.intervals.size(); ++i) check_row(i, r.intervals[i]);
  }
  void operator()(const Mask::Lists& l) const {
    require(l.rows->rows() == p.seq,
            fmt::format("mask rows: {} entries for seq {}", l.rows->rows(), p.seq));
    for (std::int64_t i = 0; i < p.seq; ++i) {
      const std::span<const KeyInterval> row = l.rows->row(i);
      require(row.empty() || row.back().end <= *p.seq_kv,
              fmt::format("mask row {}: key {} is not within [0, {})", i,
                          row.empty() ? 0 : row.back().end - 1, *p.seq_kv));
    }
  }
  void operator()(const Mask::Segments& s) const {
    const auto count = static_cast<std::int64_t>(s.ids.size());
    const bool same = s.ids_kv.empty() && *p.seq_kv > 0;
    const auto count_kv = same ? count : static_cast<std::int64_t>(s.ids_kv.size());
    require(count == p.seq && count_kv == *p.seq_kv,
            fmt::format("segments: {} ids of queries and {} of keys for seq {} and seq_kv {}",
                        count, count_kv, p.seq, *p.seq_kv));
  }
  void check_row(std::size_t i, const RowIntervals& row) const {
    std::int64_t last = 0;
    for (const KeyInterval& k : row) {
      if (k.begin >= k.end) continue;
      require(k.begin >= last && k.end <= *p.seq_kv,
              fmt::format("mask row {}: intervals must ascend within [0, {}), got [{}, {})", i,
                          *p.seq_kv, k.begin, k.end));
      last = k.end;
    }
  }
};

}  // namespace

Problem resolved(const Problem& problem) {
  Problem p = problem;
  if (!p.seq_kv) p.seq_kv = p.seq;
  if (!p.heads_kv) p.heads_kv = p.heads;
  if (!p.head_dim_v) p.head_dim_v = p.head_dim;
  check_size("batch", p.batch, 1);
  check_size("seq", p.seq, 0);
  check_size("seq_kv", *p.seq_kv, 0);
  check_size("heads", p.heads, 1);
  check_size("heads_kv", *p.heads_kv, 1);
  check_size("head_dim", p.head_dim, 1);
  check_size("head_dim_v", *p.head_dim_v, 1);
  require(p.heads % *p.heads_kv == 0,
          fmt::format("heads {} must be a multiple of heads_kv {}", p.heads, *p.heads_kv));
  require(p.dtype != DType::f64, "dtype f64: inputs are f32, f16 or bf16");
  if (!p.softmax_scale) p.softmax_scale = 1.0 / std::sqrt(static_cast<double>(p.head_dim));
  require(std::isfinite(*p.softmax_scale),
          fmt::format("softmax_scale {}: must be finite", *p.softmax_scale));
  require(std::isfinite(p.softcap) && p.softcap >= 0.0,
          fmt::format("softcap {}: must be > 0, or 0 for off", p.softcap));
  for (const Mask::Term& term : p.mask.terms()) std::visit(CheckTerm{p}, term);
  return p;
}

}  // namespace annulus
