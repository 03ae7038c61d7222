#include <annulus/trace.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

namespace annulus {
namespace {

struct Span {
  double begin = 0;
  double end = 0;
};

/// Sorted and joined, cut to the call.
std::vector<Span> joined(std::vector<Span> spans, const Span& call) {
  std::ranges::sort(spans, {}, &Span::begin);
  std::vector<Span> all;
  for (Span s : spans) {
    s = {std::max(s.begin, call.begin), std::min(s.end, call.end)};
    if (s.end <= s.begin) continue;
    if (!all.empty() && s.begin <= all.back().end) {
      all.back().end = std::max(all.back().end, s.end);
    } else {
      all.push_back(s);
    }
  }
  return all;
}

double length(const std::vector<Span>& spans) {
  double sum = 0;
  for (const Span& s : spans) sum += s.end - s.begin;
  return sum;
}

/// Of what both cover; each is joined.
double common(const std::vector<Span>& a, const std::vector<Span>& b) {
  double sum = 0;
  for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    sum += std::max(0.0, std::min(a[i].end, b[j].end) - std::max(a[i].begin, b[j].begin));
    a[i].end < b[j].end ? ++i : ++j;
  }
  return sum;
}

}  // namespace

Exposure exposure_of(const RankPlan& plan, const CallTrace& trace) {
  const Span call{trace.begin_s, trace.end_s};
  std::vector<Span> compute;
  std::vector<Span> transfers;
  for (const ItemSample& s : trace.samples) {
    if (plan.items[static_cast<std::size_t>(s.item)].kind == ItemKind::transfer) {
      transfers.push_back({s.by_flag ? s.await_s : s.begin_s, s.end_s});
    } else {
      compute.push_back({s.begin_s, s.end_s});
    }
  }
  compute = joined(std::move(compute), call);
  transfers = joined(std::move(transfers), call);
  Exposure e;
  e.call_s = std::max(0.0, call.end - call.begin);
  e.compute_s = length(compute);
  e.transfer_s = length(transfers);
  const double covered = common(compute, transfers);
  const double waited = std::clamp(trace.waited_s.value_or(0.0), 0.0, covered);
  e.compute_s -= waited;
  e.exposed_s = std::max(0.0, e.transfer_s - covered) + waited;
  e.idle_s = std::max(0.0, e.call_s - e.compute_s - e.exposed_s);
  return e;
}

std::optional<double> overlap_of(double exposed_s, double transfers_alone_s) {
  if (transfers_alone_s <= 0) return std::nullopt;
  return 1.0 - exposed_s / transfers_alone_s;
}

ClockOffset clock_offset_of(std::span<const ClockProbe> probes, bool same_machine) {
  ClockOffset best;
  bool first = true;
  for (const ClockProbe& p : probes) {
    const double error = (p.end_s - p.begin_s) / 2;
    if (!first && error >= best.error_s) continue;
    best = {p.there_s - (p.begin_s + p.end_s) / 2, error};
    first = false;
  }
  if (same_machine && std::abs(best.offset_s) <= best.error_s) return {};
  return best;
}

}  // namespace annulus
